// The arithmetic of a row's maximum and sum (kernels/cuda/attend.hpp), by which kernels that touch states agree.
#pragma once

#include <limits>

namespace orrery::kernels::cuda {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

__device__ inline bool is_finite(float x) {
  return fabsf(x) < -kMinusInfinity;
}

// 2^n, exactly, for an integer n <= 0 or n = -inf; 0 below the least normal number.
__device__ inline float power_of_two(float n) {
  return n < -126.0f ? 0.0f : __int_as_float((127 + static_cast<int>(n)) << 23);
}

// The natural log-sum-exp of a row: (row_max + log2(row_sum)) * ln 2, rounded once; -inf when it has seen nothing.
__device__ inline float log_sum_exp(float row_max, float row_sum) {
  constexpr float kLn2 = 0x1.62e43p-1f, kLn2Rest = -0x1.05c61p-29f;  // their sum is ln 2 to 48 bits
  if (row_sum == 0.0f) return kMinusInfinity;
  return fmaf(row_max, kLn2, fmaf(row_max, kLn2Rest, logf(row_sum)));
}

}  // namespace orrery::kernels::cuda
