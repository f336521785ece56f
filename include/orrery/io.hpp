// Safetensors files, read and written by shards: every rank reads and writes only its own rows, at their offsets. A
// header is hostile input; whatever is wrong with one is refused in one line that names the file and the fault.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/mask.hpp"
#include "orrery/output_file.hpp"
#include "orrery/tensor.hpp"
#include "orrery/world.hpp"

namespace orrery {

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::fp32;
  std::vector<std::int64_t> shape;
  std::int64_t file_offset = 0;  // of the first byte, from the start of the file
  std::int64_t bytes = 0;
};

// How a file orders what a tensor holds, after the batch.
enum class AxisOrder { tokens_heads, heads_tokens };

// An open file whose header has been checked: length within the file and below 100 MB, JSON object, known dtypes,
// shapes that are non-negative and do not overflow, byte ranges that match the shapes, lie in the file, do not overlap,
// and leave no hole. Throws ErrorCode::invalid. Tensors of other dtypes than fp32, bf16 and fp16 are refused when asked
// for.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::string& path() const;
  std::vector<std::string> names() const;
  // Refused when the file has no such tensor; the message lists those it has.
  const TensorInfo& info(std::string_view name) const;

  // Reads the rows at `positions` (in order) of a tensor [tokens, heads, width] or [batch, tokens, heads, width] into
  // `into`, whose batch, heads, width and dtype must be the file's and whose tokens are those of the spans. With
  // AxisOrder::heads_tokens the tensor is [heads, tokens, width] or [batch, heads, tokens, width].
  void read(const TensorInfo& tensor, std::span<const Span> positions, const TensorView& into,
            AxisOrder order = AxisOrder::tokens_heads) const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

// A tensor to be written by all ranks: its whole shape, and this rank's rows.
// [batch, tokens, heads, width] in the file; per-row tensors (lse) are [batch, heads, tokens].
struct OutputTensor {
  std::string name;
  TensorView rows;       // this rank's rows; tokens = those of `positions`
  bool per_row = false;  // write [batch, heads, tokens] instead of [batch, tokens, heads, width]; width is 1
  bool batched = true;   // keep the leading batch dimension (false only when batch is 1)
};

// Collective. Writes one file in position order: rank 0 makes it beside the output, every rank writes its rows, and it
// becomes the output when all have. What an output may be, and its errors, are OutputFile's. Into a stream, rank 0
// copies a file that lies in the folder for temporary files, which all ranks must reach. On any error no file is left
// and a regular output is as it was; all ranks throw. The ranks must describe the same tensors and hold each position
// once (their number is checked). `output` is that of rank 0, and null on all others.
void write_safetensors(World& world, OutputFile* output, std::int64_t seq_len, std::span<const Span> positions,
                       std::span<const OutputTensor> tensors);

// The same into an output that is found only now.
void write_safetensors(World& world, const std::string& path, std::int64_t seq_len, std::span<const Span> positions,
                       std::span<const OutputTensor> tensors);

}  // namespace orrery
