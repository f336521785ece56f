// Every kernel here is a loop over rows, and a row is combined, converted or summed by one of three vector functions.
#include "kernels/host/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/rowwise.cpp"
#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/element.hpp"
#include "kernels/host/pack-inl.h"
#include "kernels/host/simd-inl.h"
#include "kernels/rowwise.hpp"
#include "orrery/error.hpp"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace {

template <Dtype kFrom, Dtype kTo>
void convert_row_as(const std::byte* from, std::byte* to, std::int64_t width, float divisor) {
  constexpr std::int64_t kFromBytes = size_of(kFrom), kToBytes = size_of(kTo);
  const auto by = hn::Set(FloatTag(), divisor);
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    store_vector<kTo>(hn::Div(load_vector<kFrom>(from + i * kFromBytes), by), to + i * kToBytes);
  }
  if (i < width) {
    alignas(64) std::byte in[64] = {}, out[64];
    std::memcpy(in, from + i * kFromBytes, static_cast<std::size_t>((width - i) * kFromBytes));
    store_vector<kTo>(hn::Div(load_vector<kFrom>(in), by), out);
    std::memcpy(to + i * kToBytes, out, static_cast<std::size_t>((width - i) * kToBytes));
  }
}

template <Dtype kFrom>
void convert_row_from(const std::byte* from, std::byte* to, Dtype to_dtype, std::int64_t width, float divisor) {
  if (to_dtype == Dtype::fp32) convert_row_as<kFrom, Dtype::fp32>(from, to, width, divisor);
  if (to_dtype == Dtype::bf16) convert_row_as<kFrom, Dtype::bf16>(from, to, width, divisor);
  if (to_dtype == Dtype::fp16) convert_row_as<kFrom, Dtype::fp16>(from, to, width, divisor);
}

}  // namespace

// to [width] = from [width] / divisor, rounded to nearest even.
void convert_row(const std::byte* from, Dtype from_dtype, std::byte* to, Dtype to_dtype, std::int64_t width,
                 float divisor) {
  if (from_dtype == Dtype::fp32) convert_row_from<Dtype::fp32>(from, to, to_dtype, width, divisor);
  if (from_dtype == Dtype::bf16) convert_row_from<Dtype::bf16>(from, to, to_dtype, width, divisor);
  if (from_dtype == Dtype::fp16) convert_row_from<Dtype::fp16>(from, to, to_dtype, width, divisor);
}

// into [width] = into * into_factor + from * from_factor
void combine_row(float* into, float into_factor, const float* from, float from_factor, std::int64_t width) {
  const FloatTag df;
  const auto keep = hn::Set(df, into_factor), take = hn::Set(df, from_factor);
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    hn::StoreU(hn::MulAdd(hn::LoadU(df, from + i), take, hn::Mul(hn::LoadU(df, into + i), keep)), df, into + i);
  }
  for (; i < width; ++i) into[i] = std::fma(from[i], from_factor, into[i] * into_factor);
}

// The sum of a * b over rows of one vector of fp32 partial sums.
float dot_row(const std::byte* a, Dtype a_dtype, const std::byte* b, Dtype b_dtype, std::int64_t width) {
  constexpr int kChunk = 64;
  static_assert(kChunk % kLanes == 0, "a chunk is whole vectors");
  const FloatTag df;
  alignas(64) float left[kChunk], right[kChunk];
  auto sum = hn::Zero(df);
  for (std::int64_t i = 0; i < width; i += kChunk) {
    const int count = static_cast<int>(std::min<std::int64_t>(kChunk, width - i));
    load_row(a + i * static_cast<std::int64_t>(size_of(a_dtype)), a_dtype, count, left, kChunk);
    load_row(b + i * static_cast<std::int64_t>(size_of(b_dtype)), b_dtype, count, right, kChunk);
    for (int c = 0; c < count; c += kLanes) sum = hn::MulAdd(hn::Load(df, left + c), hn::Load(df, right + c), sum);
  }
  return hn::GetLane(hn::SumOfLanes(df, sum));
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(convert_row);
HWY_EXPORT(combine_row);
HWY_EXPORT(dot_row);

namespace {

// Calls body(batch, token, head) for every row, a few tokens an item.
template <typename Body>
void for_each_row(const TensorView& tensor, ThreadPool& pool, const Body& body) {
  constexpr std::int64_t kTokens = 16;
  const std::int64_t chunks = (tensor.tokens + kTokens - 1) / kTokens;
  pool.for_each(tensor.batch * chunks, [&](std::int64_t item, int) {
    const std::int64_t batch = item / chunks, first = item % chunks * kTokens;
    for (std::int64_t token = first; token < std::min(first + kTokens, tensor.tokens); ++token) {
      for (std::int64_t head = 0; head < tensor.heads; ++head) body(batch, token, head);
    }
  });
}

float* floats(const TensorView& tensor, std::int64_t b, std::int64_t t, std::int64_t h) {
  return reinterpret_cast<float*>(tensor.at(b, t, h));
}

void check_same_rows(const TensorView& a, const TensorView& b) {
  ORRERY_CHECK(a.batch == b.batch && a.tokens == b.tokens && a.heads == b.heads, "tensors of different shapes: [",
               a.batch, ", ", a.tokens, ", ", a.heads, "] and [", b.batch, ", ", b.tokens, ", ", b.heads, "]");
}

void check_same_shape(const TensorView& a, const TensorView& b) {
  check_same_rows(a, b);
  ORRERY_CHECK(a.width == b.width, "rows of different widths: ", a.width, " and ", b.width);
}

}  // namespace

void clear(const TensorView& into, ThreadPool& pool) {
  const std::size_t row_bytes = static_cast<std::size_t>(into.width) * size_of(into.dtype);
  for_each_row(into, pool, [&](auto b, auto t, auto h) { std::memset(into.at(b, t, h), 0, row_bytes); });
}

void clear_state(const State& into, ThreadPool& pool) {
  check_same_rows(into.accumulator, into.row_max);
  check_same_rows(into.accumulator, into.row_sum);
  for_each_row(into.accumulator, pool, [&](auto b, auto t, auto h) {
    std::fill_n(floats(into.accumulator, b, t, h), into.accumulator.width, 0.0f);
    *floats(into.row_max, b, t, h) = -std::numeric_limits<float>::infinity();
    *floats(into.row_sum, b, t, h) = 0.0f;
  });
}

void clear_scan(const ScanState& into, ThreadPool& pool) {
  clear(into.matrix, pool);
  for_each_row(into.decay, pool,
               [&](auto b, auto t, auto h) { std::fill_n(floats(into.decay, b, t, h), into.decay.width, 1.0f); });
}

void merge(const State& into, const State& from, ThreadPool& pool) {
  check_same_shape(into.accumulator, from.accumulator);
  for_each_row(into.accumulator, pool, [&](auto b, auto t, auto h) {
    float* row_max = floats(into.row_max, b, t, h);
    const float other_max = *floats(from.row_max, b, t, h);
    if (*floats(from.row_sum, b, t, h) == 0) return;
    const float new_max = std::max(*row_max, other_max);
    const float keep = std::exp(*row_max - new_max), take = std::exp(other_max - new_max);
    *row_max = new_max;
    HWY_DYNAMIC_DISPATCH(combine_row)(floats(into.row_sum, b, t, h), keep, floats(from.row_sum, b, t, h), take, 1);
    HWY_DYNAMIC_DISPATCH(combine_row)
    (floats(into.accumulator, b, t, h), keep, floats(from.accumulator, b, t, h), take, into.accumulator.width);
  });
}

void normalize(const State& state, const TensorView& out, const TensorView& lse, ThreadPool& pool) {
  check_same_shape(state.accumulator, out);
  check_same_rows(out, lse);
  const std::size_t row_bytes = static_cast<std::size_t>(out.width) * size_of(out.dtype);
  for_each_row(out, pool, [&](auto b, auto t, auto h) {
    const float row_max = *floats(state.row_max, b, t, h), row_sum = *floats(state.row_sum, b, t, h);
    if (row_sum == 0) {  // empty: any key seen would have added to the sum, the largest of them 1
      std::memset(out.at(b, t, h), 0, row_bytes);
      *floats(lse, b, t, h) = -std::numeric_limits<float>::infinity();
      return;
    }
    HWY_DYNAMIC_DISPATCH(convert_row)
    (state.accumulator.at(b, t, h), Dtype::fp32, out.at(b, t, h), out.dtype, out.width, row_sum);
    *floats(lse, b, t, h) = row_max + std::log(row_sum);
  });
}

namespace {

// The delta of a row that is not finite, as rowwise.hpp says.
float lost_delta(const TensorView& grad_out, std::int64_t b, std::int64_t t, std::int64_t h) {
  for (std::int64_t c = 0; c < grad_out.width; ++c) {
    if (!std::isfinite(load_element(grad_out, b, t, h, c))) return std::numeric_limits<float>::infinity();
  }
  return std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, ThreadPool& pool) {
  check_same_shape(out, grad_out);
  check_same_rows(out, delta);
  for_each_row(out, pool, [&](auto b, auto t, auto h) {
    float sum =
        HWY_DYNAMIC_DISPATCH(dot_row)(out.at(b, t, h), out.dtype, grad_out.at(b, t, h), grad_out.dtype, out.width);
    if (!std::isfinite(sum)) sum = lost_delta(grad_out, b, t, h);
    *floats(delta, b, t, h) = sum;
  });
}

void delta_and_clear(const TensorView& out, const TensorView& grad_out, const TensorView& delta,
                     const TensorView& cleared, ThreadPool& pool) {
  kernels::delta(out, grad_out, delta, pool);
  clear(cleared, pool);
}

void add(const TensorView& into, const TensorView& from, ThreadPool& pool) {
  check_same_shape(into, from);
  ORRERY_CHECK(into.dtype == Dtype::fp32 && from.dtype == Dtype::fp32, "only fp32 is added");
  for_each_row(into, pool, [&](auto b, auto t, auto h) {
    HWY_DYNAMIC_DISPATCH(combine_row)(floats(into, b, t, h), 1.0f, floats(from, b, t, h), 1.0f, into.width);
  });
}

void copy(const TensorView& into, const TensorView& from, ThreadPool& pool) {
  check_same_shape(into, from);
  const std::size_t row_bytes = static_cast<std::size_t>(into.width) * size_of(into.dtype);
  for_each_row(into, pool, [&](auto b, auto t, auto h) {
    if (into.dtype == from.dtype) {
      std::memcpy(into.at(b, t, h), from.at(b, t, h), row_bytes);
    } else {
      HWY_DYNAMIC_DISPATCH(convert_row)(from.at(b, t, h), from.dtype, into.at(b, t, h), into.dtype, into.width, 1.0f);
    }
  });
}

void compose(const ScanState& into, const ScanState& earlier, ThreadPool& pool) {
  check_same_shape(into.matrix, earlier.matrix);
  check_same_shape(into.decay, earlier.decay);
  const std::int64_t rows = into.decay.width;
  ORRERY_CHECK(rows > 0 && into.matrix.width % rows == 0, into.matrix.width, " elements in ", rows, " rows");
  const std::int64_t columns = into.matrix.width / rows;
  for_each_row(into.matrix, pool, [&](auto b, auto t, auto h) {
    float* decay = floats(into.decay, b, t, h);
    const float* earlier_decay = floats(earlier.decay, b, t, h);
    for (std::int64_t row = 0; row < rows; ++row) {
      HWY_DYNAMIC_DISPATCH(combine_row)
      (floats(into.matrix, b, t, h) + row * columns, 1.0f, floats(earlier.matrix, b, t, h) + row * columns, decay[row],
       columns);
      decay[row] *= earlier_decay[row];
    }
  });
}

}  // namespace orrery::kernels
#endif
