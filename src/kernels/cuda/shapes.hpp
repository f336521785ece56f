// What the small kernels check of a call's shapes.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/rowwise.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {

inline void check_same_rows(const TensorView& a, const TensorView& b) {
  ORRERY_CHECK(a.batch == b.batch && a.tokens == b.tokens && a.heads == b.heads, "tensors of different shapes: [",
               a.batch, ", ", a.tokens, ", ", a.heads, "] and [", b.batch, ", ", b.tokens, ", ", b.heads, "]");
}

inline void check_same_shape(const TensorView& a, const TensorView& b) {
  check_same_rows(a, b);
  ORRERY_CHECK(a.width == b.width, "rows of different widths: ", a.width, " and ", b.width);
}

inline void check_fp32(std::initializer_list<TensorView> tensors) {
  for (const TensorView& t : tensors) ORRERY_CHECK(t.dtype == Dtype::fp32, "a tensor of ", to_string(t.dtype));
}

// Rows of fp32 that are read or written so many floats at a time.
inline void check_float_groups(const TensorView& t, int floats) {
  const auto fits = [&](std::int64_t extent, std::int64_t stride) { return extent <= 1 || stride % floats == 0; };
  const bool aligned = reinterpret_cast<std::uintptr_t>(t.data) % (static_cast<std::size_t>(floats) * 4) == 0;
  ORRERY_CHECK(
      aligned && fits(t.batch, t.batch_stride) && fits(t.tokens, t.token_stride) && fits(t.heads, t.head_stride),
      "rows that are not aligned to ", floats, " floats: ", t.data);
}

inline void check_state(const State& state) {
  check_fp32({state.accumulator, state.row_max, state.row_sum});
  check_same_rows(state.accumulator, state.row_max);
  check_same_rows(state.accumulator, state.row_sum);
}

}  // namespace orrery::kernels::cuda
