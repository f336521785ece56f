#include "io/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "orrery/error.hpp"

namespace orrery::io {
namespace {

// Linux moves at most 2 GiB - 4 KiB in one call; asking for less keeps every transfer page-aligned.
constexpr std::int64_t kMaxTransfer = std::int64_t{1} << 30;

bool is_users_fault(int error) {
  switch (error) {
    case ENOENT:
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EROFS:
    case ENXIO:
    case EINVAL:
      return true;
    default:
      return false;
  }
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = other.release();
  }
  return *this;
}

void FileDescriptor::close() noexcept {
  // Not repeated on EINTR: Linux has then closed the descriptor already. Writers fsync first, so no error is lost here.
  if (is_open()) ::close(release());
}

int FileDescriptor::release() noexcept {
  return std::exchange(descriptor_, -1);
}

std::string quoted(std::string_view text, std::size_t limit) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + (text.size() > limit ? "...\"" : "\"");
}

void fail_file(const std::string& path, std::string_view action, int error) {
  fail(is_users_fault(error) ? ErrorCode::invalid : ErrorCode::resource, quoted(path), ": cannot ", action, ": ",
       std::generic_category().message(error));
}

FileDescriptor open_to_read(const std::string& path) {
  if (path.find('\0') != std::string::npos) refuse(quoted(path), ": a path cannot hold a zero byte");
  // O_NONBLOCK so that a FIFO without a writer opens at once; on regular files it means nothing.
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.is_open()) fail_file(path, "open", errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_file(path, "inspect", errno);
  if (S_ISDIR(status.st_mode)) refuse(quoted(path), ": is a directory, not a file");
  if (!S_ISREG(status.st_mode)) refuse(quoted(path), ": is not a regular file");
  return file;
}

std::int64_t size_of_file(const FileDescriptor& file, const std::string& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_file(path, "inspect", errno);
  return status.st_size;
}

void read_at(const FileDescriptor& file, const std::string& path, void* into, std::int64_t bytes, std::int64_t offset) {
  auto* to = static_cast<std::byte*>(into);
  while (bytes > 0) {
    const auto ask = static_cast<std::size_t>(std::min(bytes, kMaxTransfer));
    const ssize_t got = ::pread(file.get(), to, ask, offset);
    if (got == 0) refuse(quoted(path), ": ends at byte ", offset, "; it shrank after it was opened");
    if (got < 0) {
      if (errno == EINTR) continue;
      fail_file(path, "read", errno);
    }
    to += got;
    offset += got;
    bytes -= got;
  }
}

void write_at(const FileDescriptor& file, const std::string& path, const void* from, std::int64_t bytes,
              std::int64_t offset) {
  const auto* next = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    const auto give = static_cast<std::size_t>(std::min(bytes, kMaxTransfer));
    const ssize_t put = ::pwrite(file.get(), next, give, offset);
    if (put < 0) {
      if (errno == EINTR) continue;
      fail_file(path, "write", errno);
    }
    next += put;
    offset += put;
    bytes -= put;
  }
}

void sync(const FileDescriptor& file, const std::string& path) {
  while (::fsync(file.get()) != 0) {
    if (errno == EINVAL) return;  // a file system with nothing to flush
    if (errno != EINTR) fail_file(path, "flush", errno);
  }
}

}  // namespace orrery::io
