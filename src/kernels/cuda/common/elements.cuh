// Neighbouring elements of a tensor of any dtype, as floats, in accesses of up to 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T at[kCount];
};

// `from` is aligned as the Pack of its dtype is; so is `to`.
template <int kCount>
__device__ Pack<float, kCount> load_elements(const std::byte* from, Dtype dtype) {
  if (dtype == Dtype::fp32) return *reinterpret_cast<const Pack<float, kCount>*>(from);
  const auto bits = *reinterpret_cast<const Pack<std::uint16_t, kCount>*>(from);
  Pack<float, kCount> values;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values.at[i] = dtype == Dtype::bf16 ? __bfloat162float(__ushort_as_bfloat16(bits.at[i]))
                                        : __half2float(__ushort_as_half(bits.at[i]));
  }
  return values;
}

// Rounds to nearest even.
template <int kCount>
__device__ void store_elements(std::byte* to, Dtype dtype, const Pack<float, kCount>& values) {
  if (dtype == Dtype::fp32) {
    *reinterpret_cast<Pack<float, kCount>*>(to) = values;
    return;
  }
  Pack<std::uint16_t, kCount> bits;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    bits.at[i] = dtype == Dtype::bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(values.at[i]))
                                      : __half_as_ushort(__float2half_rn(values.at[i]));
  }
  *reinterpret_cast<Pack<std::uint16_t, kCount>*>(to) = bits;
}

}  // namespace orrery::kernels::cuda
