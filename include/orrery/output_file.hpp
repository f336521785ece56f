// A file that is to be written. It is found, compared and refused before anything is computed, and written when there
// is a result. A regular file is made beside its place and renamed, so that a reader sees the old one or the whole new
// one; a symbolic link to one is followed, and stays. What is no regular file (a FIFO, a character device, an open
// descriptor such as /dev/stdout, or a link to these) is written into and never replaced.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace orrery {

// Which file a path means, however it is spelled: device and inode of what exists, all links followed; else those of
// the folder, and the name in it.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0;
  std::string name;  // empty of a file that exists

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// Throws ErrorCode::invalid where the folder does not exist or cannot be reached.
FileIdentity identify_file(const std::string& path);

class OutputFile {
 public:
  // `bytes`: how many will be written, as far as that is known. A FIFO is opened now, and its reader waited for, for at
  // most `timeout_seconds`; so long may its reader also be idle later. Throws ErrorCode::invalid: a folder that is
  // missing or not writable, a read-only target, a directory, a block device or socket. Throws ErrorCode::resource:
  // not enough space; ErrorCode::peer: a FIFO that nobody reads.
  explicit OutputFile(std::string path, std::int64_t bytes = 0, double timeout_seconds = 30);
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) noexcept;

  const std::string& path() const;  // as given
  bool is_stream() const;           // written into, from where it stands

  // The whole content, once. Throws ErrorCode::resource, and ErrorCode::peer when a reader took nothing in time.
  void write(std::string_view content);

  // Removes what is half written, and lets nothing more be written. Any thread may call this at any time: a program
  // does, that is told by a signal to end.
  void abandon() noexcept;

  struct State;  // src/io/output_state.hpp
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace orrery
