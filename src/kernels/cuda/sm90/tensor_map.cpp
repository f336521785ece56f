#include "kernels/cuda/sm90/tensor_map.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "device/check.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Of the driver, which is not linked: machines without a device load this library too.
Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  ORRERY_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) fail(ErrorCode::resource, "this CUDA driver does not know tensor maps");
  return reinterpret_cast<Encode>(found);
}

// What the driver is asked for. Extents and strides are those of a TensorView; strides in bytes.
struct Map {
  CUtensorMapDataType type;
  CUtensorMapSwizzle swizzle;
  cuuint32_t rank;
  cuuint64_t extents[5], strides[4];
  cuuint32_t box[5];
};

CUtensorMap encode(const TensorView& tensor, const Map& map) {
  static const Encode call = find_encode();
  const cuuint32_t steps[] = {1, 1, 1, 1, 1};
  CUtensorMap encoded;
  const CUresult result =
      call(&encoded, map.type, map.rank, tensor.data, map.extents, map.strides, map.box, steps,
           CU_TENSOR_MAP_INTERLEAVE_NONE, map.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  ORRERY_CHECK(result == CUDA_SUCCESS, "no tensor map of [", tensor.batch, ", ", tensor.tokens, ", ", tensor.heads,
               ", ", tensor.width, "], strides ", tensor.batch_stride, ", ", tensor.token_stride, ", ",
               tensor.head_stride, ": error ", static_cast<int>(result));
  return encoded;
}

cuuint64_t extent(std::int64_t count) {
  return static_cast<cuuint64_t>(std::max<std::int64_t>(count, 1));
}
// Which nobody follows where there is one.
cuuint64_t stride(std::int64_t count, std::int64_t bytes) {
  return count > 1 ? static_cast<cuuint64_t>(bytes) : cuuint64_t{16};
}

}  // namespace

CUtensorMap tensor_map(const TensorView& t, int rows) {
  ORRERY_CHECK(t.dtype != Dtype::fp32, "a map of 16-bit panels for ", to_string(t.dtype));
  return encode(t, {t.dtype == Dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                    CU_TENSOR_MAP_SWIZZLE_128B,
                    4,
                    {extent(t.width), extent(t.tokens), extent(t.heads), extent(t.batch)},
                    {stride(t.tokens, 2 * t.token_stride), stride(t.heads, 2 * t.head_stride),
                     stride(t.batch, 2 * t.batch_stride)},
                    {64, static_cast<cuuint32_t>(rows), 1, 1}});
}

CUtensorMap strips_map(const TensorView& t, int rows) {
  ORRERY_CHECK(t.dtype == Dtype::fp32 && t.width % 8 == 0, "strips of ", t.width, " columns of ", to_string(t.dtype));
  return encode(t, {CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    CU_TENSOR_MAP_SWIZZLE_NONE,
                    5,
                    {8, extent(t.tokens), extent(t.width / 8), extent(t.heads), extent(t.batch)},
                    {stride(t.tokens, 4 * t.token_stride), 32, stride(t.heads, 4 * t.head_stride),
                     stride(t.batch, 4 * t.batch_stride)},
                    {8, static_cast<cuuint32_t>(rows), 8, 1, 1}});
}

CUtensorMap float_panel_map(const TensorView& t, int rows) {
  ORRERY_CHECK(t.dtype == Dtype::fp32, "a map of float panels for ", to_string(t.dtype));
  return encode(t, {CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                    CU_TENSOR_MAP_SWIZZLE_128B,
                    4,
                    {extent(t.width), extent(t.tokens), extent(t.heads), extent(t.batch)},
                    {stride(t.tokens, 4 * t.token_stride), stride(t.heads, 4 * t.head_stride),
                     stride(t.batch, 4 * t.batch_stride)},
                    {32, static_cast<cuuint32_t>(rows), 1, 1}});
}

}  // namespace orrery::kernels::cuda::sm90
