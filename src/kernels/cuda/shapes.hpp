// What the small kernels check of a call's shapes.
#pragma once

#include <initializer_list>

#include "kernels/cuda/rowwise.hpp"
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

inline void check_state(const State& state) {
  check_fp32({state.accumulator, state.row_max, state.row_sum});
  check_same_rows(state.accumulator, state.row_max);
  check_same_rows(state.accumulator, state.row_sum);
}

}  // namespace orrery::kernels::cuda
