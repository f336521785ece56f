// Reading by shards: a rank reads only its own rows, each run of consecutive positions in one positioned read, straight
// into the destination where that is dense. Otherwise rows go through a buffer of bounded size; strided positions that
// lie close together are read with the gaps between them, because storage gives whole pages anyway.

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <string>
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
constexpr std::int64_t kPageBytes = 4096;
constexpr std::size_t kNamesListed = 20;

// Where the rows of one batch item begin in the file, and where they go.
struct RowReader {
  const io::FileDescriptor& file;
  const std::string& path;
  const TensorView& into;
  std::int64_t row_bytes;  // heads x width of one token, dense in the file
  std::vector<std::byte>& buffer;

  bool dense_row() const { return into.heads == 1 || into.head_stride == into.width; }
  bool dense_rows() const { return dense_row() && into.token_stride == into.heads * into.width; }

  void read_run(std::int64_t file_offset, std::int64_t batch, std::int64_t index, const Span& run) {
    if (run.stride == 1 && dense_rows()) {
      io::read_at(file, path, into.at(batch, index, 0), run.count * row_bytes, file_offset + run.begin * row_bytes);
      return;
    }
    const std::int64_t row_step = run.stride * row_bytes;
    const bool with_gaps = run.stride == 1 || row_step <= kPageBytes;
    const std::int64_t rows_a_read = with_gaps ? std::max<std::int64_t>(1, kBufferBytes / row_step) : 1;
    for (std::int64_t done = 0; done < run.count; done += rows_a_read) {
      const std::int64_t rows = std::min(rows_a_read, run.count - done);
      const std::int64_t bytes = (rows - 1) * row_step + row_bytes;
      if (static_cast<std::int64_t>(buffer.size()) < bytes) buffer.resize(static_cast<std::size_t>(bytes));
      io::read_at(file, path, buffer.data(), bytes, file_offset + run.at(done) * row_bytes);
      for (std::int64_t row = 0; row < rows; ++row) scatter(buffer.data() + row * row_step, batch, index + done + row);
    }
  }

  void scatter(const std::byte* row, std::int64_t batch, std::int64_t index) {
    const std::int64_t pieces = dense_row() ? 1 : into.heads;
    const std::int64_t piece_bytes = row_bytes / pieces;
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      std::memcpy(into.at(batch, index, piece), row + piece * piece_bytes, static_cast<std::size_t>(piece_bytes));
    }
  }
};

}  // namespace

struct SafetensorsFile::File {
  std::string path;
  io::FileDescriptor descriptor;
  std::vector<io::HeaderTensor> tensors;  // in the order of their data
  std::map<std::string, std::size_t, std::less<>> index_of;
};

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(std::make_unique<File>(File{path, io::open_to_read(path), {}, {}})) {
  const std::int64_t file_bytes = io::size_of_file(file_->descriptor, path);
  if (file_bytes < 8) refuse(io::quoted(path), ": is ", file_bytes, " bytes long, too short for a safetensors file");
  std::uint64_t header_bytes = 0;
  io::read_at(file_->descriptor, path, &header_bytes, 8, 0);
  if (header_bytes > static_cast<std::uint64_t>(io::kMaxHeaderBytes)) {
    refuse(io::quoted(path), ": the header would be ", header_bytes, " bytes long; the limit is ", io::kMaxHeaderBytes,
           "; is this a safetensors file?");
  }
  if (header_bytes > static_cast<std::uint64_t>(file_bytes - 8)) {
    refuse(io::quoted(path), ": the header would be ", header_bytes, " bytes long, but the file has ", file_bytes);
  }
  std::string json(header_bytes, '\0');
  io::read_at(file_->descriptor, path, json.data(), static_cast<std::int64_t>(header_bytes), 8);
  file_->tensors = io::parse_header(path, json, file_bytes);
  for (std::size_t i = 0; i < file_->tensors.size(); ++i) file_->index_of.emplace(file_->tensors[i].info.name, i);
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::string& SafetensorsFile::path() const {
  return file_->path;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const io::HeaderTensor& tensor : file_->tensors) names.push_back(tensor.info.name);
  return names;
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = file_->index_of.find(name);
  if (found == file_->index_of.end()) {
    std::string listed;
    for (std::size_t i = 0; i < std::min(kNamesListed, file_->tensors.size()); ++i) {
      listed += (i ? ", " : "") + io::quoted(file_->tensors[i].info.name, 80);
    }
    if (file_->tensors.size() > kNamesListed) listed += concat(" and ", file_->tensors.size() - kNamesListed, " more");
    refuse(io::quoted(file_->path), ": has no tensor ", io::quoted(name, 80), "; it has ",
           listed.empty() ? "none" : listed);
  }
  const io::HeaderTensor& tensor = file_->tensors[found->second];
  if (!tensor.readable) {
    refuse(io::quoted(file_->path), ": tensor ", io::quoted(name, 80), " is ", tensor.dtype_name,
           "; only F32, BF16 and F16 can be read");
  }
  return tensor.info;
}

void SafetensorsFile::read(const TensorInfo& tensor, std::span<const Span> positions, const TensorView& into,
                           AxisOrder order) const {
  const std::string where = concat(io::quoted(file_->path), ": tensor ", io::quoted(tensor.name, 80));
  const std::size_t rank = tensor.shape.size();
  const bool heads_first = order == AxisOrder::heads_tokens;
  if (rank != 3 && rank != 4) {
    const char* axes = heads_first ? "heads, tokens" : "tokens, heads";
    refuse(where, " has ", rank, " dimensions; [", axes, ", width] or [batch, ", axes, ", width] is needed");
  }
  const std::int64_t batch = rank == 4 ? tensor.shape[0] : 1;
  const std::int64_t tokens = tensor.shape[rank - (heads_first ? 2 : 3)], width = tensor.shape[rank - 1];
  const std::int64_t heads = tensor.shape[rank - (heads_first ? 3 : 2)];
  if (into.batch != batch || into.heads != heads || into.width != width || into.dtype != tensor.dtype) {
    refuse(where, " is ", to_string(tensor.dtype), " with batch ", batch, ", heads ", heads, ", width ", width,
           "; it was to be read as ", to_string(into.dtype), " with batch ", into.batch, ", heads ", into.heads,
           ", width ", into.width);
  }
  const std::int64_t count = io::checked_count(where, positions, tokens);
  if (count != into.tokens) refuse(where, ": ", count, " positions were to be read into ", into.tokens, " tokens");
  const std::int64_t head_bytes = width * static_cast<std::int64_t>(size_of(tensor.dtype));
  if (batch == 0 || count == 0 || heads * head_bytes == 0) return;

  // Where heads come first, each is a tensor of its own with one head.
  const std::int64_t parts = heads_first ? heads : 1, row_bytes = heads / parts * head_bytes;
  std::vector<std::byte> buffer;
  for (std::int64_t part = 0; part < parts; ++part) {
    TensorView rows = into;
    rows.data = into.at(0, 0, part);
    rows.heads = heads / parts;
    RowReader reader{file_->descriptor, file_->path, rows, row_bytes, buffer};
    for (std::int64_t b = 0; b < batch; ++b) {
      const std::int64_t file_offset = tensor.file_offset + (b * parts + part) * tokens * row_bytes;
      io::for_each_run(positions,
                       [&](std::int64_t index, const Span& run) { reader.read_run(file_offset, b, index, run); });
    }
  }
}

}  // namespace orrery
