#include "launch/files.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "launch/text.hpp"
#include "orrery/error.hpp"

namespace orrery::launch {

void check_writable(const std::string& path) {
  if (path.empty() || path == "-") return;
  namespace fs = std::filesystem;
  std::error_code fault;
  if (fs::is_directory(path, fault)) refuse("cannot write ", path, ": it is a directory");
  fs::path folder = fs::path(path).parent_path();
  if (folder.empty()) folder = ".";
  if (!fs::is_directory(folder, fault)) refuse("cannot write ", path, ": there is no directory ", folder.string());
  if (::access(folder.c_str(), W_OK | X_OK) != 0) refuse("cannot write ", path, ": ", std::strerror(errno));
}

void write_file(const std::string& path, std::string_view text) {
  if (path == "-") return print(text);
  const std::string beside = concat(path, ".", ::getpid(), ".part");
  std::ofstream file(beside, std::ios::binary);
  file << text;
  file.close();
  if (!file || std::rename(beside.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(beside.c_str());
    fail(ErrorCode::resource, "cannot write ", path, ": ", reason);
  }
}

}  // namespace orrery::launch
