// Attention that leaves a margin of multiprocessors free: the bits of a run on all of them, whether few of many tiles
// or many of few run at a time.
#include <vector>

#include "gpu/kernel/on_device.hpp"
#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "kernels/cuda/portable/forward/attend_forward.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

// The kernels of a device by the front, and the portable ones by name.
struct Kernels {
  const char* name;
  void (*forward)(const cuda::AttendForward&, device::StreamHandle);
  void (*backward)(const cuda::AttendBackward&, device::StreamHandle);
};
constexpr Kernels kFront = {"front", cuda::attend_forward, cuda::attend_backward};
constexpr Kernels kPortable = {
    "portable", cuda::attend_forward_16bit,
    [](const cuda::AttendBackward& call, device::StreamHandle stream) { cuda::attend_backward_16bit(call, stream); }};

// The state after the first keys, the output after the last, and the gradients, added to and stored, by both.
struct Results {
  Problem problem;
  Tensor key_out, value_out;

  Results(const Shape& shape, Mask mask, const Kernels& kernels, int sm_margin)
      : problem(make_problem(shape, mask)),
        key_out(shape.dtype, shape.batch, shape.key_len, shape.kv_heads, shape.head_dim, kAlignedPadding),
        value_out(shape.dtype, shape.batch, shape.key_len, shape.kv_heads, shape.head_dim, kAlignedPadding) {
    prepare_backward(problem, 1.0f);
    const DeviceArray<std::byte> scratch(std::vector<std::byte>(cuda::kForwardScratchBytes, std::byte{0xff}));
    const OnDevice device(problem);
    const std::int64_t middle = shape.key_len / 2;
    const auto forward = [&](cuda::AttendForward call) {
      call.sm_margin = sm_margin;
      call.scratch = scratch.data();
      kernels.forward(call, nullptr);
    };
    const auto backward = [&](cuda::AttendBackward call) {
      call.sm_margin = sm_margin;
      kernels.backward(call, nullptr);
    };
    device.add_gradients(0, middle, backward);
    device.add_gradients(middle, shape.key_len, backward);
    device.fetch_gradients_into(problem);
    const DeviceTensor device_key_out(key_out), device_value_out(value_out);
    device.add_gradients(0, shape.key_len, [&](cuda::AttendBackward call) {
      call.first = call.last = true;
      call.key_out = device_key_out;
      call.value_out = device_value_out;
      backward(call);
    });
    device_key_out.fetch_into(key_out);
    device_value_out.fetch_into(value_out);
    device.fold(0, middle, true, false, forward);
    device.fetch_state_into(problem);
    device.fold(middle, shape.key_len, false, true, forward);
    device.fetch_out_into(problem);
  }

  bool same_bits(const Results& other) const {
    const Problem &a = problem, &b = other.problem;
    return a.accumulator.memory() == b.accumulator.memory() && a.row_max.memory() == b.row_max.memory() &&
           a.row_sum.memory() == b.row_sum.memory() && a.out.memory() == b.out.memory() &&
           a.lse.memory() == b.lse.memory() && a.grad_query.memory() == b.grad_query.memory() &&
           a.grad_key.memory() == b.grad_key.memory() && a.grad_value.memory() == b.grad_value.memory() &&
           key_out.memory() == other.key_out.memory() && value_out.memory() == other.value_out.memory();
  }
};

void check_margins(const Shape& shape, Mask mask, const Kernels& kernels) {
  const int sms = cuda_devices().at(0).multiprocessors;
  const Results whole(shape, mask, kernels, 0);
  for (const int margin : {1, sms - 2}) {
    INFO(describe(shape, mask) << ' ' << kernels.name << " margin " << margin);
    CHECK(Results(shape, mask, kernels, margin).same_bits(whole));
  }
}

TEST_CASE("a margin of multiprocessors changes no bit") {
  for (Mask mask : {Mask::full, Mask::causal, Mask::window_sinks, Mask::empty_rows}) {
    for (std::int64_t head_dim : {64, 128, 256}) {
      check_margins({Dtype::bf16, 1, 700, 900, 4, 2, head_dim}, mask, kFront);
      check_margins({Dtype::fp16, 1, 700, 900, 4, 2, head_dim}, mask, kPortable);
    }
    check_margins({Dtype::fp32, 1, 300, 500, 2, 1, 64}, mask, kFront);
  }
  check_margins({Dtype::fp32, 1, 300, 500, 2, 1, 200}, Mask::random, kFront);
  check_margins({Dtype::bf16, 1, 3, 5, 1, 1, 32}, Mask::full, kPortable);  // one tile
}

TEST_CASE("a margin of all multiprocessors, or a call without scratch, is refused") {
  const Problem p = make_problem({Dtype::bf16, 1, 8, 8, 2, 1, 16}, Mask::full);
  const DeviceArray<std::byte> scratch(std::vector<std::byte>(cuda::kForwardScratchBytes));
  const OnDevice device(p);
  device.fold(0, 8, true, true, [&](cuda::AttendForward call) {
    call.scratch = nullptr;
    CHECK_THROWS_AS(cuda::attend_forward(call, nullptr), Error);
    call.scratch = scratch.data();
    call.sm_margin = cuda_devices().at(0).multiprocessors;
    CHECK_THROWS_AS(cuda::attend_forward(call, nullptr), Error);
    call.sm_margin = -1;
    CHECK_THROWS_AS(cuda::attend_forward(call, nullptr), Error);
  });
}

}  // namespace
}  // namespace orrery::test
