// The command line, a word a line, and behind an empty line the file of --config.
#include "launch/options.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

using namespace orrery;

namespace {

// A file of memory alone.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view text) : descriptor_(::memfd_create("options", 0)) {
    fuzz::require(::write(descriptor_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return concat("/proc/self/fd/", descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  // A name of a file that the fuzzer makes up could be any.
  if (text.find("config") != std::string_view::npos || text.find('\0') != std::string_view::npos) return -1;
  std::vector<std::string> words;
  std::string_view rest = text;
  while (!rest.empty() && rest.front() != '\n') {
    const std::size_t end = rest.find('\n');
    words.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  std::optional<MemoryFile> file;
  if (!rest.empty()) {
    file.emplace(rest.substr(1));
    words.insert(words.end(), {"--config", file->path()});
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  const auto command = fuzz::accepted([&] { return launch::parse_command(arguments, Env{}); });
  if (!command) return 0;
  const launch::Options& options = command->options;
  fuzz::require((command->verb == launch::Verb::help) == !command->help.empty());
  fuzz::require(options.threads >= 1 && options.timeout_seconds > 0 && options.seq_len.value_or(0) >= 0);
  fuzz::require(options.ranks.value_or(1) >= 1 && options.heads.value_or(1) >= 1);
  return 0;
}
