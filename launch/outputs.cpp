#include "launch/outputs.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/file.hpp"
#include "orrery/mask.hpp"

namespace orrery::launch {
namespace {

constexpr double kMostReaderSeconds = 30;  // that the reader of a FIFO may let us wait

struct NamedFile {
  std::string option, path;
  FileIdentity identity;
  bool is_shared_device = false;  // a character device, which many may write into
};

FileIdentity identity_of(const struct stat& status) {
  return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino), {}};
}

std::vector<NamedFile> inputs_of(const Options& options) {
  std::vector<NamedFile> inputs;
  const auto add = [&](const char* option, std::string path) {
    struct stat status {};
    if (!path.empty() && ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      inputs.push_back({option, std::move(path), identity_of(status)});
    }
  };
  add("query", std::string(longest_file(options.query, ':')));
  add("key", std::string(longest_file(options.key, ':')));
  add("value", std::string(longest_file(options.value, ':')));
  add("grad-out", std::string(longest_file(options.grad_out, ':')));
  add("mask", documents_file(options.mask.value_or("")));
  add("config", options.config);
  return inputs;
}

// The descriptor, 1 or 2, that is open on this file already: writing over its name would leave it nameless.
int standard_descriptor(const FileIdentity& identity) {
  for (const int number : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat status {};
    if (::fstat(number, &status) == 0 && identity_of(status) == identity) return number;
  }
  return -1;
}

}  // namespace

Outputs::Outputs(const Options& options, std::int64_t out_bytes) {
  const std::vector<NamedFile> inputs = inputs_of(options);
  std::vector<NamedFile> outputs;
  const auto add = [&](const char* option, const std::string& given) {
    if (given.empty()) return;
    NamedFile output{option, given == "-" ? "/dev/stdout" : given, {}};
    output.identity = identify_file(output.path);
    for (const NamedFile& input : inputs) {
      if (input.identity == output.identity) {
        refuse("--", option, " ", given, " would destroy the input of --", input.option, ", ", input.path);
      }
    }
    struct stat status {};
    output.is_shared_device = ::stat(output.path.c_str(), &status) == 0 && S_ISCHR(status.st_mode);
    for (const NamedFile& other : outputs) {
      if (other.identity == output.identity && !output.is_shared_device) {
        refuse("--", other.option, " and --", option, " name the same file: ", given);
      }
    }
    const int standard = standard_descriptor(output.identity);
    if (standard == STDOUT_FILENO) text_ = false;
    if (standard >= 0) output.path = standard == STDOUT_FILENO ? "/dev/stdout" : "/dev/stderr";
    outputs.push_back(std::move(output));
  };
  add("out", options.out);
  add("trace", options.trace);
  add("json", options.json);

  const double patience = std::min(kMostReaderSeconds, options.timeout_seconds / 2);
  for (const NamedFile& output : outputs) {
    Output& mine = output.option == "out" ? out_ : output.option == "trace" ? trace_ : json_;
    mine.file.emplace(output.path, output.option == "out" ? out_bytes : 0, patience);
    mine.watched.emplace(*mine.file);
  }
}

}  // namespace orrery::launch
