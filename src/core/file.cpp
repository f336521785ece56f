#include "orrery/file.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <system_error>

#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr int kPatienceMilliseconds = 10'000;

[[noreturn]] void refuse_to_read(int error) {
  refuse("cannot be read: ", std::generic_category().message(error));
}

struct Descriptor {
  int number;
  ~Descriptor() { ::close(number); }
};

}  // namespace

std::string_view longest_file(std::string_view text, char separator) {
  for (std::size_t end = text.size(); end != std::string_view::npos && end > 0; end = text.rfind(separator, end - 1)) {
    if (end >= PATH_MAX) continue;
    const std::string name(text.substr(0, end));
    struct stat status {};
    if (name.find('\0') == std::string::npos && ::stat(name.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
      return text.substr(0, end);
    }
  }
  return {};
}

std::string read_text_file(const std::string& path, std::size_t most_bytes) {
  if (path.find('\0') != std::string::npos) refuse_to_read(EINVAL);
  // Without O_NONBLOCK, opening a FIFO would wait for a writer without end.
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (number < 0) refuse_to_read(errno);
  const Descriptor file{number};
  struct stat status {};
  if (::fstat(number, &status) == 0 && S_ISDIR(status.st_mode)) refuse_to_read(EISDIR);
  std::string contents;
  char block[1 << 16];
  for (;;) {
    pollfd ready{number, POLLIN, 0};
    const int events = ::poll(&ready, 1, kPatienceMilliseconds);
    if (events == 0) refuse("sent nothing for ", kPatienceMilliseconds / 1000, " s");
    const ssize_t got = events < 0 ? -1 : ::read(number, block, sizeof block);
    if (got < 0 && errno != EINTR && errno != EAGAIN) refuse_to_read(errno);
    if (got == 0) return contents;
    if (got > 0) contents.append(block, static_cast<std::size_t>(got));
    if (contents.size() > most_bytes) refuse("is longer than ", most_bytes, " bytes");
  }
}

}  // namespace orrery
