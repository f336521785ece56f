// Writing together. Rank 0 makes a file of a new name beside the target, at its full size, so that a full disk is met
// before any work is lost; every rank writes its rows where they belong; when all have, rank 0 renames the file to the
// target. A reader of the target therefore sees the old file or the whole new one. The ranks agree after each stage, so
// that an error on one of them stops all of them, and the half-written file is removed as the stack of rank 0 unwinds.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "io/file.hpp"
#include "io/rows.hpp"
#include "io/safetensors_header.hpp"
#include "orrery/error.hpp"
#include "orrery/io.hpp"

namespace orrery {

static_assert(std::endian::native == std::endian::little,
              "safetensors holds little-endian numbers, copied as they are");

namespace {

constexpr std::int64_t kBufferBytes = 1 << 20;

// A stage that one rank does by itself: its error waits for agree_no_error instead of leaving the others behind.
template <typename Stage>
void together(World& world, const Stage& stage) {
  std::optional<Error> error;
  try {
    stage();
  } catch (const Error& caught) {
    error = caught;
  } catch (const std::bad_alloc&) {
    error = Error(ErrorCode::resource, "out of memory while writing a file");
  } catch (const std::exception& caught) {
    error = Error(ErrorCode::bug, caught.what());
  }
  agree_no_error(world, error ? &*error : nullptr);
}

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

void set_size(const io::FileDescriptor& file, const std::string& path, std::int64_t bytes) {
#ifdef __linux__
  // Not posix_fallocate: where a file system cannot reserve space, that writes a byte into every block instead.
  int result;
  do {
    result = ::fallocate(file.get(), 0, 0, bytes);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) io::fail_file(path, "reserve space for", errno);
#endif
  if (::ftruncate(file.get(), bytes) != 0) io::fail_file(path, "set the size of", errno);
}

void sync(const io::FileDescriptor& file, const std::string& path) {
  while (::fsync(file.get()) != 0) {
    if (errno == EINVAL) return;  // a file system with nothing to flush
    if (errno != EINTR) io::fail_file(path, "flush", errno);
  }
}

// The file of rank 0 until it bears the target's name. Its own name is short and random: no target makes it too long,
// and two jobs that write the same target do not meet.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& target, std::string_view header, std::int64_t bytes) {
    refuse_unusable(target);
    const std::string directory = directory_of(target);
    std::random_device random;
    do {
      char name[40];
      std::snprintf(name, sizeof name, "/.orrery-%08x%08x.tmp", random(), random());
      path_ = directory + name;
      file_ = io::FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    } while (!file_.is_open() && errno == EEXIST);
    if (!file_.is_open()) io::fail_file(target, "write", errno);
    try {
      set_size(file_, target, bytes);
      io::write_at(file_, target, header.data(), static_cast<std::int64_t>(header.size()), 0);
    } catch (...) {
      ::unlink(path_.c_str());
      throw;
    }
  }
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

  void rename_to(const std::string& target) {
    sync(file_, target);
    if (::rename(path_.c_str(), target.c_str()) != 0) io::fail_file(target, "write", errno);
    path_.clear();
    // So that the name survives a crash too. Not every file system can flush a directory; the data are safe without it.
    const io::FileDescriptor directory(::open(directory_of(target).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.is_open()) ::fsync(directory.get());
  }

 private:
  // Only a regular file or a symbolic link is replaced: a rename would put a file in the place of /dev/null.
  static void refuse_unusable(const std::string& target) {
    if (target.empty() || target.back() == '/' || target.find('\0') != std::string::npos) {
      refuse(io::quoted(target), ": is not the name of a file");
    }
    struct stat status {};
    if (::lstat(target.c_str(), &status) != 0) {
      if (errno != ENOENT) io::fail_file(target, "write", errno);
      return;
    }
    if (S_ISDIR(status.st_mode)) refuse(io::quoted(target), ": is a directory, not a file");
    if (!S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
      refuse(io::quoted(target), ": exists and is not a regular file, so it is not replaced");
    }
  }

  std::string path_;  // empty once renamed
  io::FileDescriptor file_;
};

// What the file will hold, from one rank's view of it.
std::vector<TensorInfo> describe(const std::string& path, std::int64_t seq_len, std::int64_t count,
                                 std::span<const OutputTensor> tensors) {
  std::vector<TensorInfo> infos;
  for (const OutputTensor& tensor : tensors) {
    const std::string where = concat(io::quoted(path), ": tensor ", io::quoted(tensor.name, 80));
    const TensorView& rows = tensor.rows;
    if (rows.tokens != count) refuse(where, " has ", rows.tokens, " tokens for ", count, " positions");
    if (rows.batch < 0 || rows.heads < 0 || rows.width < 0) refuse(where, " has a negative extent");
    if (tensor.per_row && rows.width != 1) refuse(where, " has one value a row but width ", rows.width);
    if (!tensor.batched && rows.batch != 1) refuse(where, " cannot be written without its batch of ", rows.batch);
    std::vector<std::int64_t> shape;
    if (tensor.batched) shape.push_back(rows.batch);
    if (tensor.per_row) {
      shape.insert(shape.end(), {rows.heads, seq_len});
    } else {
      shape.insert(shape.end(), {seq_len, rows.heads, rows.width});
    }
    infos.push_back({tensor.name, rows.dtype, std::move(shape), 0, 0});
  }
  return infos;
}

// Refused unless all ranks describe the same file and hold `seq_len` positions between them.
void agree_on_header(World& world, const std::string& path, const std::string& header, std::int64_t seq_len,
                     std::int64_t count) {
  const std::vector<std::string> headers = all_gather(world, concat(seq_len, ":", header));
  const std::vector<std::string> counts = all_gather(world, std::to_string(count));
  std::int64_t held = 0;
  for (std::size_t rank = 0; rank < headers.size(); ++rank) {
    if (headers[rank] != headers[0]) refuse(io::quoted(path), ": rank ", rank, " describes other tensors than rank 0");
    held += std::stoll(counts[rank]);
  }
  if (held != seq_len) refuse(io::quoted(path), ": the ranks hold ", held, " positions of ", seq_len);
}

// Writes lines of `count` pieces, piece i at `file_offset + i * piece_bytes` and of memory pieces(i): in one call where
// the memory is dense, else through the buffer.
struct PieceWriter {
  const io::FileDescriptor& file;
  const std::string& path;
  std::vector<std::byte> buffer;

  template <typename Pieces>
  void write(std::int64_t file_offset, std::int64_t count, std::int64_t piece_bytes, bool dense, const Pieces& pieces) {
    if (dense) {
      io::write_at(file, path, pieces(0), count * piece_bytes, file_offset);
      return;
    }
    const std::int64_t pieces_a_write = std::max<std::int64_t>(1, kBufferBytes / piece_bytes);
    buffer.resize(static_cast<std::size_t>(std::min(count, pieces_a_write) * piece_bytes));
    for (std::int64_t done = 0; done < count; done += pieces_a_write) {
      const std::int64_t now = std::min(pieces_a_write, count - done);
      for (std::int64_t i = 0; i < now; ++i) {
        std::memcpy(buffer.data() + i * piece_bytes, pieces(done + i), static_cast<std::size_t>(piece_bytes));
      }
      io::write_at(file, path, buffer.data(), now * piece_bytes, file_offset + done * piece_bytes);
    }
  }
};

// A run of stride s > 1 is `count` runs of one position: what lies between belongs to other ranks.
template <typename Visit>
void for_each_writable_run(std::span<const Span> positions, const Visit& visit) {
  io::for_each_run(positions, [&](std::int64_t index, const Span& run) {
    if (run.stride == 1) {
      visit(index, run.begin, run.count);
    } else {
      for (std::int64_t i = 0; i < run.count; ++i) visit(index + i, run.at(i), std::int64_t{1});
    }
  });
}

void write_rows(PieceWriter& writer, const TensorInfo& info, const OutputTensor& tensor, std::int64_t seq_len,
                std::span<const Span> positions) {
  const TensorView& rows = tensor.rows;
  const std::int64_t element = static_cast<std::int64_t>(size_of(rows.dtype));
  const std::int64_t row_bytes = rows.heads * rows.width * element;
  if (row_bytes == 0) return;
  for (std::int64_t b = 0; b < rows.batch; ++b) {
    for_each_writable_run(positions, [&](std::int64_t index, std::int64_t position, std::int64_t count) {
      if (tensor.per_row) {
        for (std::int64_t h = 0; h < rows.heads; ++h) {
          const std::int64_t offset = info.file_offset + ((b * rows.heads + h) * seq_len + position) * element;
          writer.write(offset, count, element, rows.token_stride == 1,
                       [&](std::int64_t i) { return rows.at(b, index + i, h); });
        }
        return;
      }
      const std::int64_t offset = info.file_offset + (b * seq_len + position) * row_bytes;
      const bool dense_row = rows.heads == 1 || rows.head_stride == rows.width;
      if (dense_row) {
        const bool dense = rows.token_stride == rows.heads * rows.width;
        writer.write(offset, count, row_bytes, dense, [&](std::int64_t i) { return rows.at(b, index + i, 0); });
      } else {
        writer.write(offset, count * rows.heads, rows.width * element, false,
                     [&](std::int64_t i) { return rows.at(b, index + i / rows.heads, i % rows.heads); });
      }
    });
  }
}

}  // namespace

void write_safetensors(World& world, const std::string& path, std::int64_t seq_len, std::span<const Span> positions,
                       std::span<const OutputTensor> tensors) {
  std::vector<TensorInfo> infos;
  std::string header;
  std::int64_t file_bytes = 0, count = 0;
  together(world, [&] {
    if (seq_len < 0) refuse(io::quoted(path), ": seq_len is ", seq_len);
    count = io::checked_count(io::quoted(path), positions, seq_len);
    infos = describe(path, seq_len, count, tensors);
    header = io::make_header(path, infos);
    file_bytes = static_cast<std::int64_t>(header.size());
    for (const TensorInfo& info : infos) file_bytes += info.bytes;
  });
  agree_on_header(world, path, header, seq_len, count);

  std::optional<TemporaryFile> temporary;
  together(world, [&] {
    if (world.rank() == 0) temporary.emplace(path, header, file_bytes);
  });
  const std::string name = all_gather(world, temporary ? temporary->path() : std::string())[0];
  together(world, [&] {
    const io::FileDescriptor file(::open(name.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file.is_open())
      io::fail_file(path, "reach the file of rank 0 (is the directory shared by all nodes?) for", errno);
    PieceWriter writer{file, path, {}};
    for (std::size_t i = 0; i < tensors.size(); ++i) write_rows(writer, infos[i], tensors[i], seq_len, positions);
    sync(file, path);
  });
  // From here a rank can only be told that the file is whole, or lose its peers.
  together(world, [&] {
    if (temporary) temporary->rename_to(path);
  });
}

}  // namespace orrery
