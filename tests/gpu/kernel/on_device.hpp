// A problem of the attention kernels on the device, and how its keys are folded into a state and its gradients found.
#pragma once

#include <functional>
#include <vector>

#include "gpu/kernel/device_tensor.hpp"
#include "kernels/cuda/attend.hpp"
#include "kernels/rowwise.hpp"

namespace orrery::test {

namespace cuda = kernels::cuda;

// A problem, and its tensors on the device as the host had them when this was made.
class OnDevice {
 public:
  using Forward = std::function<void(const cuda::AttendForward&)>;
  using Backward = std::function<void(const cuda::AttendBackward&)>;

  explicit OnDevice(const Problem& problem)
      : query(problem.query),
        key(problem.key),
        value(problem.value),
        grad_out(problem.grad_out),
        accumulator(problem.accumulator),
        row_max(problem.row_max),
        row_sum(problem.row_sum),
        out(problem.out),
        lse(problem.lse),
        delta(problem.delta),
        grad_query(problem.grad_query),
        grad_key(problem.grad_key),
        grad_value(problem.grad_value),
        ranges(problem.ranges),
        scale(problem.scale) {}

  cuda::State state() const { return {accumulator, row_max, row_sum}; }

  // Folds keys [begin, end) into the state. The scratch holds nothing that makes sense.
  void fold(
      std::int64_t begin, std::int64_t end, bool first, bool last,
      const Forward& attend = [](const auto& call) { cuda::attend_forward(call, nullptr); }) const {
    const DeviceRanges block(ranges_within(ranges, begin, end));
    const DeviceArray<std::byte> scratch(std::vector<std::byte>(cuda::kForwardScratchBytes, std::byte{0xff}));
    attend({query, key.tokens(begin, end), value.tokens(begin, end), accumulator, row_max, row_sum, block.view(), scale,
            first, last, out, lse, 0, scratch.data()});
  }
  // Adds the gradients that come from keys [begin, end). The scratch holds nothing that makes sense.
  void add_gradients(
      std::int64_t begin, std::int64_t end,
      const Backward& attend = [](const auto& call) { cuda::attend_backward(call, nullptr); }) const {
    const DeviceRanges block(ranges_within(ranges, begin, end));
    const TensorView &q = query, &k = key;
    const std::vector<std::byte> noise(
        cuda::attend_backward_scratch_bytes(q.batch, q.tokens, q.heads, end - begin, k.heads, q.width),
        std::byte{0xff});
    const DeviceArray<std::byte> scratch(noise);
    attend({query, grad_out, key.tokens(begin, end), value.tokens(begin, end), lse, delta, grad_query,
            grad_key.tokens(begin, end), grad_value.tokens(begin, end), block.view(), scale, true, scratch.data()});
  }
  void fetch_out_into(Problem& problem) const {
    out.fetch_into(problem.out);
    lse.fetch_into(problem.lse);
  }
  void fetch_state_into(Problem& problem) const {
    accumulator.fetch_into(problem.accumulator);
    row_max.fetch_into(problem.row_max);
    row_sum.fetch_into(problem.row_sum);
  }
  void fetch_gradients_into(Problem& problem) const {
    grad_query.fetch_into(problem.grad_query);
    grad_key.fetch_into(problem.grad_key);
    grad_value.fetch_into(problem.grad_value);
  }

  DeviceTensor query, key, value, grad_out, accumulator, row_max, row_sum, out, lse, delta, grad_query, grad_key,
      grad_value;
  std::vector<kernels::KeyRange> ranges;
  float scale;
};

// Rows of 16-bit problems are aligned to 16 bytes, and their out is of their dtype; rows of fp32 problems are aligned
// to nothing.
inline Problem make_problem(const Shape& s, Mask mask) {
  Problem p(s, key_ranges(mask, static_cast<int>(s.query_len), static_cast<int>(s.key_len)));
  if (s.dtype == Dtype::fp32) return p;
  for (Tensor* tensor : {&p.query, &p.key, &p.value, &p.grad_out, &p.accumulator, &p.row_max, &p.row_sum, &p.out,
                         &p.lse, &p.delta, &p.grad_query, &p.grad_key, &p.grad_value}) {
    const TensorView t = *tensor;
    *tensor = Tensor(tensor == &p.out ? s.dtype : t.dtype, t.batch, t.tokens, t.heads, t.width, kAlignedPadding);
  }
  std::uint32_t seed = 1;
  for (Tensor* input : {&p.query, &p.key, &p.value, &p.grad_out}) input->fill_normal(seed++);
  return p;
}

inline void fill_gradients(Problem& p, float constant) {
  for (Tensor* gradient : {&p.grad_query, &p.grad_key, &p.grad_value}) gradient->fill_constant(constant);
}

// What the backward pass starts from: lse and delta by the host's kernels, from an out of fp32; gradients of
// `constant`.
inline void prepare_backward(Problem& p, float constant) {
  ThreadPool pool(4);
  const TensorView q = p.query;
  const Tensor out(Dtype::fp32, q.batch, q.tokens, q.heads, q.width);
  kernels::clear_state(p.state(), pool);
  p.fold(pool, 0, p.key.view().tokens);
  kernels::normalize(p.state(), out, p.lse, pool);
  kernels::delta(out, p.grad_out, p.delta, pool);
  fill_gradients(p, constant);
}

inline kernels::reference::Forward forward_of(const Problem& p) {
  return kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
}
inline kernels::reference::Backward backward_of(const Problem& p) {
  return kernels::reference::backward(p.query, p.key, p.value, p.grad_out, forward_of(p), p.scale, p.admits());
}

// The dtypes of the 16-bit kernels, and the largest relative error of rounding to one of them.
inline constexpr Dtype kShortDtypes[] = {Dtype::bf16, Dtype::fp16};
inline double rounding_of(Dtype dtype) {
  return dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
}

// Both dtypes under every mask at every width of the tiles, below it and just past it, with turns of ragged sizes and
// grouping.
template <typename Check>
void for_each_short_problem(const Check& check) {
  const std::int64_t head_dims[] = {8, 24, 32, 40, 64, 72, 96, 104, 128, 136, 192, 200, 256};
  const std::int64_t sizes[][2] = {{0, 5},   {5, 0},    {1, 1},    {1, 333},   {2, 65},    {17, 2},   {63, 64},
                                   {64, 63}, {65, 130}, {130, 17}, {130, 200}, {200, 130}, {333, 64}, {97, 333}};
  const std::int64_t heads[][2] = {{1, 1}, {2, 1}, {3, 1}, {6, 1}, {8, 1}, {4, 2}, {6, 2}, {2, 2}, {8, 4}};
  unsigned turn = 0;
  for (Dtype dtype : kShortDtypes) {
    for (Mask mask : kMasks) {
      for (std::int64_t head_dim : head_dims) {  // their number shares no divisor with those of sizes and heads
        const auto& [query_len, key_len] = sizes[turn % std::size(sizes)];
        const auto& [query_heads, kv_heads] = heads[turn % std::size(heads)];
        check(Shape{dtype, 1 + turn / 7 % 2, query_len, key_len, query_heads, kv_heads, head_dim}, mask);
        ++turn;
      }
    }
  }
}

}  // namespace orrery::test
