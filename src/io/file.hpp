// Files as the io room uses them: a descriptor that closes itself, transfers at a position that finish what they begin,
// and errors that know whose fault they are. A path or a permission is the user's (ErrorCode::invalid); a full disk or
// a broken device is not (ErrorCode::resource).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace orrery::io {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;

  int get() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }

 private:
  void close() noexcept;
  int release() noexcept;

  int descriptor_ = -1;
};

// Text that came from outside, in double quotes, fit for a one-line message: control characters are escaped and what is
// longer than `limit` bytes is cut.
std::string quoted(std::string_view text, std::size_t limit = 4096);

// Throws the error that errno value `error` stands for: "PATH: cannot ACTION: reason".
[[noreturn]] void fail_file(const std::string& path, std::string_view action, int error);

// Opens a regular file for reading. Anything else is refused, and a FIFO is refused without waiting for its writer.
FileDescriptor open_to_read(const std::string& path);
std::int64_t size_of_file(const FileDescriptor& file, const std::string& path);

// Transfers all `bytes` at `offset`. Reading past the end means that the file shrank after it was opened: refused.
void read_at(const FileDescriptor& file, const std::string& path, void* into, std::int64_t bytes, std::int64_t offset);
void write_at(const FileDescriptor& file, const std::string& path, const void* from, std::int64_t bytes,
              std::int64_t offset);

// Returns when what was written lies on the medium.
void sync(const FileDescriptor& file, const std::string& path);

}  // namespace orrery::io
