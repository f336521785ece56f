// What errors may be. The errors of right results follow three sizes and nothing else: the rounding of the dtype,
// relative to what was summed up to a row; the rounding of the scores in fp32, which grows with their size; and that of
// lse itself. They grow neither with the length of the sequence nor with the number of ranks. docs/errors.md has the
// measurements. A row's limit is well above the largest error seen of one row; the errors of all rows together may be
// kAggregateShare of that.
#pragma once

#include <cmath>

#include "orrery/tensor.hpp"

namespace orrery {

inline constexpr double kAggregateShare = 0.25;  // 1 where a row's limit is a bound, and not a margin over errors seen

// The size of an lse with the scores that it was made of: 1, |lse|, and |scale| |query| |key|, the key's length being
// the mean over the row's softmax.
inline double lse_size(double lse, double score_size) {
  return 1 + std::abs(lse) + score_size;
}

inline constexpr double kLseLimit = 5e-7;  // of an lse, relative to its size
inline constexpr double kLseShare = 0.5;   // as kAggregateShare

// Of a row of out or of a gradient, relative to its size and that of what was summed up to it.
inline double row_limit(Dtype dtype, double size_of_lse) {
  const double rounding = dtype == Dtype::fp32 ? 4e-6 : dtype == Dtype::bf16 ? 2e-2 : 2.5e-3;
  return rounding + 2 * kLseLimit * size_of_lse;
}

// What a number near 0 may lose, absolutely: the least number above 0, or in fp32 and bf16 the least whose bits are not
// cut, as devices flush smaller ones.
inline double underflow(Dtype dtype) {
  return dtype == Dtype::fp16 ? 0x1p-24 : 0x1p-126;
}

// Of counting inputs: an element of out is a quotient of integers, rounded to fp32 a few times and once to the dtype.
inline double exact_limit(Dtype dtype) {
  const double rounding = dtype == Dtype::fp32 ? 0 : dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
  return rounding + 8 * 0x1p-24;
}

}  // namespace orrery
