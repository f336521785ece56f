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

CUtensorMap panels_of(const TensorView& tensor, CUtensorMapDataType type, int rows) {
  static const Encode encode = find_encode();
  constexpr std::int64_t kPanelBytes = 128;
  const auto element = static_cast<std::int64_t>(size_of(tensor.dtype));
  const auto extent = [](std::int64_t count) { return static_cast<cuuint64_t>(std::max<std::int64_t>(count, 1)); };
  const auto stride = [&](std::int64_t count, std::int64_t elements) {  // which nobody follows where there is one
    return count > 1 ? static_cast<cuuint64_t>(elements * element) : cuuint64_t{16};
  };
  const cuuint64_t extents[] = {extent(tensor.width), extent(tensor.tokens), extent(tensor.heads),
                                extent(tensor.batch)};
  const cuuint64_t strides[] = {stride(tensor.tokens, tensor.token_stride), stride(tensor.heads, tensor.head_stride),
                                stride(tensor.batch, tensor.batch_stride)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(kPanelBytes / element), static_cast<cuuint32_t>(rows), 1, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, type, 4, tensor.data, extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  ORRERY_CHECK(result == CUDA_SUCCESS, "no tensor map of [", tensor.batch, ", ", tensor.tokens, ", ", tensor.heads,
               ", ", tensor.width, "], strides ", tensor.batch_stride, ", ", tensor.token_stride, ", ",
               tensor.head_stride, ", boxes of ", rows, " rows: error ", static_cast<int>(result));
  return map;
}

}  // namespace

CUtensorMap tensor_map(const TensorView& tensor, int rows) {
  const bool bf16 = tensor.dtype == Dtype::bf16;
  ORRERY_CHECK(bf16 || tensor.dtype == Dtype::fp16, "a map of 16-bit panels for ", to_string(tensor.dtype));
  return panels_of(tensor, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rows);
}

CUtensorMap float_map(const TensorView& tensor, int rows) {
  ORRERY_CHECK(tensor.dtype == Dtype::fp32, "a map of fp32 panels for ", to_string(tensor.dtype));
  return panels_of(tensor, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rows);
}

}  // namespace orrery::kernels::cuda::sm90
