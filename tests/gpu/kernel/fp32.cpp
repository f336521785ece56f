// The fp32 attention kernels against float64, over every kind of mask, size and head_dim, at once and in blocks.
#include <cmath>

#include "gpu/kernel/on_device.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

constexpr double kTolerance = 2e-6;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

void check_forward(Problem& p, double tolerance = kTolerance) {
  const auto expected = forward_of(p);
  const Difference out = compare(p.out, expected.out), lse = compare(p.lse, expected.lse, Order::heads_tokens);
  INFO("out " << out << "\nlse " << lse);
  CHECK(out.rel_l2 <= tolerance);
  CHECK((lse.rel_l2 <= tolerance || lse.max_abs <= tolerance));
  CHECK((p.out.padding_intact() && p.lse.padding_intact()));
}

void check_at_once(const Shape& shape, Mask mask) {
  INFO(describe(shape, mask));
  Problem p = make_problem(shape, mask);
  const OnDevice device(p);
  device.fold(0, shape.key_len, true, true);
  device.fetch_out_into(p);
  check_forward(p);
}

void check_gradient(const char* which, const Tensor& actual, const std::vector<double>& expected) {
  const Difference difference = compare(actual, expected);
  INFO(which << ": " << difference);
  // A gradient that is zero but for rounding, as of the scores of a single key, has no relative error to speak of.
  CHECK((difference.rel_l2 <= 5e-6 || difference.max_abs <= 1e-5));
  CHECK(actual.padding_intact());
}

void check_gradients(Problem& p, double constant) {
  auto expected = backward_of(p);
  for (auto* gradient : {&expected.grad_query, &expected.grad_key, &expected.grad_value}) {
    for (double& element : *gradient) element += constant;
  }
  check_gradient("dq", p.grad_query, expected.grad_query);
  check_gradient("dk", p.grad_key, expected.grad_key);
  check_gradient("dv", p.grad_value, expected.grad_value);
}

void check_backward(const Shape& shape, Mask mask) {
  INFO(describe(shape, mask));
  Problem p = make_problem(shape, mask);
  prepare_backward(p, 0.0f);
  const OnDevice device(p);
  device.add_gradients(0, shape.key_len);
  device.fetch_gradients_into(p);
  check_gradients(p, 0.0);
}

// Under every mask, at ragged sizes, with turns of head_dim and grouping.
template <typename Check>
void for_each_problem(const Check& check) {
  const std::int64_t sizes[][2] = {{0, 5},   {5, 0},    {1, 1},    {1, 130},  {2, 65},    {17, 2},
                                   {64, 64}, {65, 130}, {130, 17}, {97, 200}, {200, 193}, {48, 64}};
  const std::int64_t head_dims[] = {1, 8, 24, 64, 80, 128, 192, 256};
  const std::int64_t heads[][2] = {{1, 1}, {4, 2}, {6, 1}, {2, 2}};
  unsigned turn = 0;
  for (Mask mask : kMasks) {
    for (const auto& size : sizes) {
      check(Shape{Dtype::fp32, 1 + turn % 2, size[0], size[1], heads[turn % 4][0], heads[turn % 4][1],
                  head_dims[turn % 8]},
            mask);
      ++turn;
    }
    ++turn;  // so that a size meets other head_dims and heads under the next mask
  }
}

TEST_CASE("fp32 forward agrees with float64 under every mask at ragged sizes") {
  for_each_problem(check_at_once);
}

TEST_CASE("fp32 backward agrees with float64 under every mask at ragged sizes") {
  for_each_problem(check_backward);
}

TEST_CASE("fp32 kernels take every head_dim") {
  for (std::int64_t head_dim = 1; head_dim <= 256; head_dim += head_dim < 64 || head_dim > 250 ? 1 : 9) {
    check_at_once({Dtype::fp32, 1, 9, 21, 1, 1, head_dim}, Mask::random);
    check_backward({Dtype::fp32, 1, 9, 21, 1, 1, head_dim}, Mask::random);
  }
}

TEST_CASE("without key ranges every query sees every key in fp32") {
  Problem p = make_problem({Dtype::fp32, 2, 70, 150, 4, 2, 32}, Mask::full);
  prepare_backward(p, 0.0f);
  const OnDevice device(p);
  device.add_gradients(0, 150, [](cuda::AttendBackward call) {
    call.key_ranges = {};
    cuda::attend_backward(call, nullptr);
  });
  device.fold(0, 150, true, true, [](cuda::AttendForward call) {
    call.key_ranges = {};
    call.accumulator = call.row_max = call.row_sum = {};
    cuda::attend_forward(call, nullptr);
  });
  device.fetch_gradients_into(p);
  device.fetch_out_into(p);
  check_gradients(p, 0.0);
  check_forward(p);
}

TEST_CASE("an fp32 state carried over blocks of keys is that of all of them") {
  for (Mask mask : kMasks) {
    for (std::int64_t head_dim : {24, 128, 256}) {
      const Shape shape = {Dtype::fp32, 1, 150, 333, 4, 2, head_dim};
      INFO(describe(shape, mask));
      Problem p = make_problem(shape, mask);
      const OnDevice device(p);
      const std::int64_t ends[] = {1, 130, 130, 201, 333};
      for (std::int64_t begin = 0; std::int64_t end : ends) {
        device.fold(begin, end, begin == 0, false);
        begin = end;
      }
      device.fold(333, 333, false, true);
      device.fetch_out_into(p);
      check_forward(p);

      // The same by normalising the state that stays.
      device.fold(0, 333, true, false);
      cuda::normalize(device.state(), device.out, device.lse, nullptr);
      device.fetch_out_into(p);
      check_forward(p);
      device.fetch_state_into(p);
      CHECK((p.accumulator.padding_intact() && p.row_max.padding_intact() && p.row_sum.padding_intact()));
      for (int i = 0; i < 150; ++i) {
        const double row_max = p.row_max.get(0, i, 3, 0);
        CHECK((row_max == kMinusInfinity || row_max == std::floor(row_max)));
      }
    }
  }
}

TEST_CASE("fp32 rows that see nothing are empty, and a state that sees nothing more keeps its bits") {
  Problem p = make_problem({Dtype::fp32, 1, 100, 80, 2, 1, 24}, Mask::empty_rows);
  OnDevice device(p);
  device.fold(0, 80, true, false);
  device.fetch_state_into(p);
  for (int i = 1; i < 100; i += 3) {
    CHECK((p.row_max.get(0, i, 0, 0) == kMinusInfinity && p.row_sum.get(0, i, 0, 0) == 0.0));
    for (int c = 0; c < 24; ++c) CHECK(p.accumulator.get(0, i, 1, c) == 0.0);
  }
  const auto accumulator = p.accumulator.memory(), row_sum = p.row_sum.memory();
  device.ranges.assign(100, kernels::KeyRange{});
  device.fold(0, 80, false, false);
  device.fetch_state_into(p);
  CHECK((p.accumulator.memory() == accumulator && p.row_sum.memory() == row_sum));
  device.fold(0, 80, true, true);
  device.fetch_out_into(p);
  CHECK(compare(p.out, std::vector<double>(100 * 2 * 24)).max_abs == 0.0);
  CHECK(compare(p.lse, std::vector<double>(200, kMinusInfinity)).max_abs == 0.0);
}

TEST_CASE("small fp32 terms after large ones are not lost") {
  constexpr int kDim = 8, kKeys = 8192;
  constexpr float kLargeScore = 9.5f;
  Problem p = make_problem({Dtype::fp32, 1, 1, kKeys + 1, 1, 1, kDim}, Mask::full);
  p.query.fill([](auto, auto, auto, auto c) { return c == 0 ? 1.0 : 0.0; });
  p.key.fill([&](auto, auto t, auto, auto c) { return c == 0 && t == 0 ? kLargeScore : 0.0f; });
  p.value.fill([](auto, auto t, auto, auto c) { return t == 0 ? 1.0 : 1.0 + 0.125 * static_cast<double>(c); });
  p.scale = 1.0f;
  const OnDevice device(p);
  device.fold(0, 1, true, false);
  device.fold(1, kKeys + 1, false, true);
  device.fetch_out_into(p);
  check_forward(p);
}

TEST_CASE("large fp32 scores keep their precision") {
  Problem p = make_problem({Dtype::fp32, 1, 100, 700, 2, 2, 128}, Mask::causal);
  p.scale *= 8.0f;  // scores of some 30
  const OnDevice device(p);
  device.fold(0, 700, true, true);
  device.fetch_out_into(p);
  check_forward(p, 5e-6);
}

TEST_CASE("fp32 gradients are added to what is there, whether the keys come at once or in blocks") {
  Problem p = make_problem({Dtype::fp32, 1, 100, 180, 2, 1, 48}, Mask::random);
  prepare_backward(p, 2.0f);
  const OnDevice device(p);
  device.add_gradients(130, 180);
  device.add_gradients(0, 1);
  device.add_gradients(1, 130);
  device.fetch_gradients_into(p);
  check_gradients(p, 2.0);
}

TEST_CASE("an fp32 row whose lse is -inf neither gets nor gives a gradient") {
  Problem p = make_problem({Dtype::fp32, 1, 60, 70, 1, 1, 16}, Mask::full);
  prepare_backward(p, 0.0f);
  constexpr int kRow = 30;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  p.lse.set(0, kRow, 0, 0, static_cast<float>(kMinusInfinity));
  p.query.set(0, kRow, 0, 3, nan);
  p.grad_out.set(0, kRow, 0, 5, nan);
  const OnDevice device(p);
  device.add_gradients(0, 70);
  device.fetch_gradients_into(p);
  p.query.set(0, kRow, 0, 3, 0.0f);
  p.grad_out.set(0, kRow, 0, 5, 0.0f);
  p.ranges[kRow] = {};
  check_gradients(p, 0.0);
  for (int c = 0; c < 16; ++c) CHECK(p.grad_query.get(0, kRow, 0, c) == 0.0);
}

TEST_CASE("fp32 results have the same bits every time") {
  Problem p = make_problem({Dtype::fp32, 2, 500, 700, 8, 2, 128}, Mask::window_sinks),
          again = make_problem({Dtype::fp32, 2, 500, 700, 8, 2, 128}, Mask::window_sinks);
  for (Problem* run : {&p, &again}) {
    prepare_backward(*run, 1.0f);
    const OnDevice device(*run);
    device.fold(0, 700, true, true);
    device.add_gradients(0, 700);
    device.fetch_out_into(*run);
    device.fetch_gradients_into(*run);
  }
  CHECK((p.out.memory() == again.out.memory() && p.lse.memory() == again.lse.memory()));
  CHECK(p.grad_query.memory() == again.grad_query.memory());
  CHECK(p.grad_key.memory() == again.grad_key.memory());
  CHECK(p.grad_value.memory() == again.grad_value.memory());
}

TEST_CASE("attention refuses what the kernels cannot take") {
  CHECK(cuda::attend_refuses(Dtype::fp32, 1) == nullptr);
  CHECK(cuda::attend_refuses(Dtype::fp32, 256) == nullptr);
  CHECK(cuda::attend_refuses(Dtype::bf16, 72) == nullptr);
  CHECK(cuda::attend_refuses(Dtype::fp32, 257) != nullptr);
  CHECK(cuda::attend_refuses(Dtype::fp16, 0) != nullptr);
  CHECK(cuda::attend_refuses(Dtype::bf16, 20) != nullptr);
  alignas(16) std::byte memory[64];
  CHECK(cuda::attend_takes(TensorView::dense(memory, Dtype::bf16, 1, 2, 2, 8)));
  CHECK(cuda::attend_takes(TensorView::dense(memory, Dtype::bf16, 1, 1, 1, 4)));
  CHECK(!cuda::attend_takes(TensorView::dense(memory, Dtype::bf16, 1, 2, 1, 4)));
  CHECK(!cuda::attend_takes(TensorView::dense(memory + 2, Dtype::bf16, 1, 2, 1, 8)));
  CHECK(cuda::attend_takes(TensorView::dense(memory + 4, Dtype::fp32, 1, 2, 1, 3)));
  Problem p = make_problem({Dtype::fp32, 1, 4, 4, 3, 1, 8}, Mask::full);
  const OnDevice device(p);
  device.fold(0, 4, true, true, [](cuda::AttendForward call) {
    call.key.width = call.value.width = 4;
    CHECK_THROWS_AS(cuda::attend_forward(call, nullptr), Error);
  });
}

}  // namespace
}  // namespace orrery::test
