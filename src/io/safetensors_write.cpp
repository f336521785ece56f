// Writing together. Rank 0 begins a new file at its full size, so that a full disk is met at once. Every rank writes
// its rows where they belong. When all have, rank 0 makes the new file the output (output_file.cpp). The ranks agree
// after each stage, so that an error on one of them stops all of them, and the half-written file is removed as the
// stack of rank 0 unwinds.

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/file.hpp"
#include "io/output_state.hpp"
#include "io/rows.hpp"
#include "io/safetensors_header.hpp"
#include "orrery/error.hpp"
#include "orrery/io.hpp"

namespace orrery {

static_assert(std::endian::native == std::endian::little,
              "safetensors holds little-endian numbers, copied as they are");

namespace {

constexpr std::int64_t kBufferBytes = 1 << 20;

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

// The new file of rank 0. It is gone when this ends without commit().
class NewFile {
 public:
  NewFile(OutputFile& output, std::string_view header, std::int64_t bytes) : output_(output.state()) {
    file_ = output_.begin(bytes);
    try {
      io::write_at(file_, output_.path, header.data(), static_cast<std::int64_t>(header.size()), 0);
    } catch (...) {
      output_.discard();
      throw;
    }
  }
  ~NewFile() { output_.discard(); }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::string& name() const { return output_.temporary; }
  void commit() { output_.commit(file_); }

 private:
  OutputFile::State& output_;
  io::FileDescriptor file_;
};

// `open_output(bytes)` gives rank 0 its output.
template <typename OpenOutput>
void write_together(World& world, std::int64_t seq_len, std::span<const Span> positions,
                    std::span<const OutputTensor> tensors, const std::string& path, const OpenOutput& open_output) {
  std::vector<TensorInfo> infos;
  std::string header;
  std::int64_t file_bytes = 0, count = 0;
  all_or_none(world, [&] {
    if (seq_len < 0) refuse(io::quoted(path), ": seq_len is ", seq_len);
    count = io::checked_count(io::quoted(path), positions, seq_len);
    infos = describe(path, seq_len, count, tensors);
    header = io::make_header(path, infos);
    file_bytes = static_cast<std::int64_t>(header.size());
    for (const TensorInfo& info : infos) file_bytes += info.bytes;
  });
  agree_on_header(world, path, header, seq_len, count);

  std::optional<NewFile> made;
  all_or_none(world, [&] {
    if (world.rank() == 0) made.emplace(open_output(file_bytes), header, file_bytes);
  });
  const std::string name = all_gather(world, made ? made->name() : std::string())[0];
  all_or_none(world, [&] {
    const io::FileDescriptor file(::open(name.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file.is_open())
      io::fail_file(path, "reach the file of rank 0 (is the directory shared by all nodes?) for", errno);
    PieceWriter writer{file, path, {}};
    for (std::size_t i = 0; i < tensors.size(); ++i) write_rows(writer, infos[i], tensors[i], seq_len, positions);
    io::sync(file, path);
  });
  // From here a rank can only be told that the file is whole, or lose its peers.
  all_or_none(world, [&] {
    if (made) made->commit();
  });
}

}  // namespace

void write_safetensors(World& world, OutputFile* output, std::int64_t seq_len, std::span<const Span> positions,
                       std::span<const OutputTensor> tensors) {
  write_together(world, seq_len, positions, tensors, all_gather(world, output ? output->path() : std::string())[0],
                 [&](std::int64_t) -> OutputFile& { return *output; });
}

void write_safetensors(World& world, const std::string& path, std::int64_t seq_len, std::span<const Span> positions,
                       std::span<const OutputTensor> tensors) {
  std::optional<OutputFile> output;
  write_together(world, seq_len, positions, tensors, path, [&](std::int64_t bytes) -> OutputFile& {
    return output.emplace(path, bytes, world.timeout_seconds() / 2);
  });
}

}  // namespace orrery
