// Kernels in which a row has numbers of its own (merge, normalize, delta, compose). A group of neighbouring lanes of
// one warp takes the row together, so that its numbers are read by all before one lane writes them, and sums have a
// fixed order. All are bound by memory; four floats, 16 bytes, are one lane's access where pointers and strides allow.
#include <algorithm>
#include <initializer_list>

#include "device/check.hpp"
#include "kernels/cuda/common/divisor.cuh"
#include "kernels/cuda/common/elements.cuh"
#include "kernels/cuda/common/state.cuh"
#include "kernels/cuda/shapes.hpp"
#include "kernels/rowwise.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kRowsPerGroup = 4;  // enough work a block that starting blocks is no limit
constexpr int kTogether = 4;      // elements of one access

// A row's place in all tensors of a call.
struct Place {
  std::int64_t batch, token, head;
};

struct Rows {
  std::byte* data;  // [batch, tokens, heads, width]
  std::int64_t batch_stride, token_stride, head_stride;
  Dtype dtype;

  Rows(const TensorView& tensor)
      : data(static_cast<std::byte*>(tensor.data)),
        batch_stride(tensor.batch_stride),
        token_stride(tensor.token_stride),
        head_stride(tensor.head_stride),
        dtype(tensor.dtype) {}

  __device__ std::byte* at(const Place& row, std::int64_t column) const {
    return data + (row.batch * batch_stride + row.token * token_stride + row.head * head_stride + column) *
                      (dtype == Dtype::fp32 ? 4 : 2);
  }
  __device__ float& number(const Place& row, std::int64_t column = 0) const {
    return *reinterpret_cast<float*>(
        data + 4 * (row.batch * batch_stride + row.token * token_stride + row.head * head_stride + column));
  }
  template <int kCount>
  __device__ Pack<float, kCount> load(const Place& row, std::int64_t column) const {
    return load_elements<kCount>(at(row, column), dtype);
  }
  template <int kCount>
  __device__ void store(const Place& row, std::int64_t column, const Pack<float, kCount>& values) const {
    store_elements(at(row, column), dtype, values);
  }
};

struct DeviceState {
  Rows accumulator, row_max, row_sum;
  explicit DeviceState(const State& state)
      : accumulator(state.accumulator), row_max(state.row_max), row_sum(state.row_sum) {}
};

// Rows dealt to groups of 2^lanes_log2 lanes. A group is whole: all of its lanes have the row or none has.
class RowGrid {
 public:
  // `accesses` of a row are shared by the lanes that take it.
  RowGrid(const TensorView& tensor, std::int64_t rows, std::int64_t accesses)
      : rows_(rows), heads_(tensor.heads), tokens_(tensor.tokens) {
    while ((1 << lanes_log2_) < kWarp && (1 << lanes_log2_) < accesses) ++lanes_log2_;
  }

  unsigned blocks() const {
    const std::int64_t rows_per_block = kRowsPerGroup * groups();
    return static_cast<unsigned>((rows_ + rows_per_block - 1) / rows_per_block);
  }

  __device__ int lanes() const { return 1 << lanes_log2_; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) & (lanes() - 1); }
  __device__ unsigned group_mask() const {
    const unsigned low = ~0u >> (kWarp - lanes());
    return low << (static_cast<int>(threadIdx.x) % kWarp & ~(lanes() - 1));
  }
  // Of a row index as counted by (batch, token, head).
  __device__ Place place(std::int64_t row) const {
    const Divisor::Division by_head = heads_.divide(row);
    const Divisor::Division by_token = tokens_.divide(by_head.quotient);
    return {by_token.quotient, by_token.rest, by_head.rest};
  }
  // body(row) for the group's share of the rows.
  template <typename Body>
  __device__ void for_each_row(const Body& body) const {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kRowsPerGroup * groups()) +
                               (static_cast<int>(threadIdx.x) >> lanes_log2_);
#pragma unroll
    for (int i = 0; i < kRowsPerGroup; ++i) {
      const std::int64_t row = first + i * groups();
      if (row < rows_) body(row);
    }
  }

 private:
  __host__ __device__ int groups() const {
    return kThreads >> lanes_log2_;
  }

  std::int64_t rows_;
  Divisor heads_, tokens_;
  int lanes_log2_ = 0;
};

// Whether `count` neighbouring elements of every row can be one access.
bool rows_allow(int count, std::initializer_list<TensorView> tensors) {
  for (const TensorView& t : tensors) {
    const auto bytes = std::min<std::uint64_t>(16, static_cast<std::uint64_t>(count) * size_of(t.dtype));
    if (t.width % count != 0 || reinterpret_cast<std::uintptr_t>(t.data) % bytes != 0) return false;
    if (t.batch > 1 && t.batch_stride % count != 0) return false;
    if (t.tokens > 1 && t.token_stride % count != 0) return false;
    if (t.heads > 1 && t.head_stride % count != 0) return false;
  }
  return true;
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) merge_rows(RowGrid grid, DeviceState into, DeviceState from, int width) {
  grid.for_each_row([&](std::int64_t row) {
    const Place at = grid.place(row);
    const float taken_sum = from.row_sum.number(at), taken_max = from.row_max.number(at);
    const float kept_sum = into.row_sum.number(at), kept_max = into.row_max.number(at);
    if (taken_sum == 0.0f) return;
    const float new_max = fmaxf(kept_max, taken_max);
    const float keep = exp2f(kept_max - new_max), take = exp2f(taken_max - new_max);
    __syncwarp(grid.group_mask());  // all lanes have read what one of them now writes
    if (grid.lane() == 0) {
      into.row_max.number(at) = new_max;
      into.row_sum.number(at) = fmaf(taken_sum, take, kept_sum * keep);
    }
    for (int column = grid.lane() * kCount; column < width; column += grid.lanes() * kCount) {
      auto sum = into.accumulator.load<kCount>(at, column);
      const auto term = from.accumulator.load<kCount>(at, column);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum.at[i] = fmaf(term.at[i], take, sum.at[i] * keep);
      into.accumulator.store(at, column, sum);
    }
  });
}

template <int kCount>
__global__ void __launch_bounds__(kThreads)
    normalize_rows(RowGrid grid, DeviceState state, Rows out, Rows lse, int width) {
  grid.for_each_row([&](std::int64_t row) {
    const Place at = grid.place(row);
    const float row_sum = state.row_sum.number(at);
    if (grid.lane() == 0) lse.number(at) = log_sum_exp(state.row_max.number(at), row_sum);
    for (int column = grid.lane() * kCount; column < width; column += grid.lanes() * kCount) {
      auto values = state.accumulator.load<kCount>(at, column);
#pragma unroll
      for (int i = 0; i < kCount; ++i) values.at[i] = row_sum == 0.0f ? 0.0f : values.at[i] / row_sum;
      out.store(at, column, values);
    }
  });
}

// The delta of a row that is not finite: +inf when grad_out is not, else NaN. By all lanes of the row.
template <int kCount>
__device__ float lost_delta(const RowGrid& grid, const Rows& grad_out, const Place& at, int width) {
  bool lost = false;
  for (int column = grid.lane() * kCount; column < width; column += grid.lanes() * kCount) {
    const auto b = grad_out.load<kCount>(at, column);
#pragma unroll
    for (int i = 0; i < kCount; ++i) lost |= !is_finite(b.at[i]);
  }
  return __any_sync(grid.group_mask(), lost) ? -kMinusInfinity : nanf("");
}

// With kClears also puts zeros into rows of floats.
template <int kCount, bool kClears>
__global__ void __launch_bounds__(kThreads)
    delta_rows(RowGrid grid, Rows out, Rows grad_out, Rows delta, Rows cleared, int width) {
  grid.for_each_row([&](std::int64_t row) {
    const Place at = grid.place(row);
    if constexpr (kClears) {
      for (int column = grid.lane() * kTogether; column < width; column += grid.lanes() * kTogether) {
        cleared.store(at, column, Pack<float, kTogether>{});
      }
    }
    float sum = 0.0f;
    for (int column = grid.lane() * kCount; column < width; column += grid.lanes() * kCount) {
      const auto a = out.load<kCount>(at, column), b = grad_out.load<kCount>(at, column);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum = fmaf(a.at[i], b.at[i], sum);
    }
    for (int apart = grid.lanes() / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(grid.group_mask(), sum, apart);
    if (!is_finite(sum)) sum = lost_delta<kCount>(grid, grad_out, at, width);
    if (grid.lane() == 0) delta.number(at) = sum;
  });
}

// A row here is one row of a scan matrix: the states' rows, each cut in `parts`.
template <int kCount>
__global__ void __launch_bounds__(kThreads) compose_rows(RowGrid grid, Divisor parts, Rows matrix, Rows decay,
                                                         Rows earlier_matrix, Rows earlier_decay, int columns) {
  grid.for_each_row([&](std::int64_t row) {
    const auto [state, part] = parts.divide(row);
    const Place at = grid.place(state);
    const float factor = decay.number(at, part);
    __syncwarp(grid.group_mask());  // all lanes have read what one of them now writes
    if (grid.lane() == 0) decay.number(at, part) = factor * earlier_decay.number(at, part);
    for (int column = grid.lane() * kCount; column < columns; column += grid.lanes() * kCount) {
      auto sum = matrix.load<kCount>(at, part * columns + column);
      const auto term = earlier_matrix.load<kCount>(at, part * columns + column);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum.at[i] = fmaf(factor, term.at[i], sum.at[i]);
      matrix.store(at, part * columns + column, sum);
    }
  });
}

// A grid for whole rows of a tensor, `count` elements an access; launch(grid) when there is anything to do.
template <typename Launch>
void launch_rows(const TensorView& tensor, int count, const Launch& launch) {
  if (tensor.elements() == 0) return;
  launch(RowGrid(tensor, tensor.batch * tensor.tokens * tensor.heads, tensor.width / count));
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

template <bool kClears>
void launch_delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, const TensorView& cleared,
                  device::StreamHandle stream) {
  check_same_shape(out, grad_out);
  check_same_rows(out, delta);
  check_fp32({delta});
  constexpr int kWide = 2 * kTogether;  // 16 bytes of 16-bit elements
  const bool narrow = out.dtype != Dtype::fp32 && grad_out.dtype != Dtype::fp32;
  const int count = narrow && rows_allow(kWide, {out, grad_out}) ? kWide
                    : rows_allow(kTogether, {out, grad_out})     ? kTogether
                                                                 : 1;
  launch_rows(out, count, [&](const RowGrid& grid) {
    const auto kernel = count == kWide       ? delta_rows<kWide, kClears>
                        : count == kTogether ? delta_rows<kTogether, kClears>
                                             : delta_rows<1, kClears>;
    kernel<<<grid.blocks(), kThreads, 0, stream>>>(grid, out, grad_out, delta, cleared, static_cast<int>(out.width));
  });
}

}  // namespace

void merge(const State& into, const State& from, device::StreamHandle stream) {
  check_state(into);
  check_state(from);
  check_same_shape(into.accumulator, from.accumulator);
  const int count = rows_allow(kTogether, {into.accumulator, from.accumulator}) ? kTogether : 1;
  launch_rows(into.accumulator, count, [&](const RowGrid& grid) {
    const auto kernel = count == kTogether ? merge_rows<kTogether> : merge_rows<1>;
    kernel<<<grid.blocks(), kThreads, 0, stream>>>(grid, DeviceState(into), DeviceState(from),
                                                   static_cast<int>(into.accumulator.width));
  });
}

void normalize(const State& state, const TensorView& out, const TensorView& lse, device::StreamHandle stream) {
  check_state(state);
  check_same_shape(state.accumulator, out);
  check_same_rows(out, lse);
  check_fp32({lse});
  const int count = rows_allow(kTogether, {state.accumulator, out}) ? kTogether : 1;
  launch_rows(out, count, [&](const RowGrid& grid) {
    const auto kernel = count == kTogether ? normalize_rows<kTogether> : normalize_rows<1>;
    kernel<<<grid.blocks(), kThreads, 0, stream>>>(grid, DeviceState(state), out, lse, static_cast<int>(out.width));
  });
}

void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, device::StreamHandle stream) {
  launch_delta<false>(out, grad_out, delta, {}, stream);
}

void delta_and_clear(const TensorView& out, const TensorView& grad_out, const TensorView& delta,
                     const TensorView& cleared, device::StreamHandle stream) {
  check_fp32({cleared});
  check_same_shape(out, cleared);
  if (rows_allow(kTogether, {cleared})) return launch_delta<true>(out, grad_out, delta, cleared, stream);
  clear(cleared, stream);
  launch_delta<false>(out, grad_out, delta, {}, stream);
}

void compose(const ScanState& into, const ScanState& earlier, device::StreamHandle stream) {
  check_fp32({into.matrix, into.decay, earlier.matrix, earlier.decay});
  check_same_shape(into.matrix, earlier.matrix);
  check_same_shape(into.decay, earlier.decay);
  check_same_rows(into.matrix, into.decay);
  const std::int64_t parts = into.decay.width;
  ORRERY_CHECK(parts > 0 && into.matrix.width % parts == 0, into.matrix.width, " elements in ", parts, " rows");
  if (into.matrix.elements() == 0) return;
  const std::int64_t columns = into.matrix.width / parts;
  const bool whole = columns % kTogether == 0 && rows_allow(kTogether, {into.matrix, earlier.matrix});
  const auto kernel = whole ? compose_rows<kTogether> : compose_rows<1>;
  const RowGrid grid(into.matrix, into.matrix.elements() / columns, columns / (whole ? kTogether : 1));
  kernel<<<grid.blocks(), kThreads, 0, stream>>>(grid, Divisor(parts), into.matrix, into.decay, earlier.matrix,
                                                 earlier.decay, static_cast<int>(columns));
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
