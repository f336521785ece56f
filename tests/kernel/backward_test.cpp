// The three gradients against float64, over every kind of mask, size, head_dim and dtype.
#include "kernel/problem.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

void check_gradient(const char* which, const Tensor& actual, const std::vector<double>& expected) {
  const Difference difference = compare(actual, expected);
  INFO(which << ": " << difference);
  // A gradient that is zero but for rounding, as of the scores of a single key, has no relative error to speak of.
  CHECK((difference.rel_l2 <= 5e-6 || difference.max_abs <= 1e-5));
  CHECK(actual.padding_intact());
}

void check_backward(const Shape& shape, Mask mask, int threads = 1) {
  INFO(describe(shape, mask));
  ThreadPool pool(threads);
  Problem p(shape, key_ranges(mask, static_cast<int>(shape.query_len), static_cast<int>(shape.key_len)));
  p.forward(pool);
  p.backward(pool);
  const auto forward = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
  const auto expected = kernels::reference::backward(p.query, p.key, p.value, p.grad_out, forward, p.scale, p.admits());
  check_gradient("dq", p.grad_query, expected.grad_query);
  check_gradient("dk", p.grad_key, expected.grad_key);
  check_gradient("dv", p.grad_value, expected.grad_value);
}

TEST_CASE("backward agrees with float64 under every mask at ragged sizes") {
  const std::int64_t sizes[][2] = {{0, 5},   {5, 0},    {1, 1},    {1, 130},  {2, 65},    {17, 2},
                                   {64, 64}, {65, 130}, {130, 17}, {97, 200}, {200, 193}, {48, 64}};
  const std::int64_t head_dims[] = {1, 8, 24, 64, 80, 128, 192, 256};
  const std::int64_t heads[][2] = {{1, 1}, {4, 2}, {6, 1}, {2, 2}};
  unsigned turn = 0;
  for (Mask mask : kMasks) {
    for (const auto& size : sizes) {
      const Shape shape = {static_cast<Dtype>(turn % 3), 1 + turn % 2,       size[0], size[1], heads[turn % 4][0],
                           heads[turn % 4][1],           head_dims[turn % 8]};
      check_backward(shape, mask);
      ++turn;
    }
    ++turn;
  }
}

TEST_CASE("backward agrees with float64 for every dtype and head_dim") {
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (std::int64_t head_dim : {1, 8, 24, 64, 80, 128, 192, 256}) {
      check_backward({dtype, 1, 130, 150, 2, 1, head_dim}, Mask::causal);
    }
  }
  for (std::int64_t head_dim = 1; head_dim <= 256; ++head_dim) {
    check_backward({Dtype::fp32, 1, 9, 21, 1, 1, head_dim}, Mask::random);
  }
}

TEST_CASE("backward agrees with float64 over many key blocks and threads") {
  check_backward({Dtype::fp32, 1, 300, 500, 2, 1, 128}, Mask::causal, 3);
  check_backward({Dtype::fp16, 2, 150, 700, 2, 2, 64}, Mask::random, 3);
}

TEST_CASE("gradients are added to what is there, whether the keys come at once or in blocks") {
  ThreadPool pool(1);
  Problem p({Dtype::fp32, 1, 100, 180, 2, 1, 48}, key_ranges(Mask::random, 100, 180));
  p.forward(pool);
  p.backward(pool);
  const auto forward = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
  auto expected = kernels::reference::backward(p.query, p.key, p.value, p.grad_out, forward, p.scale, p.admits());
  for (auto* gradient : {&expected.grad_query, &expected.grad_key, &expected.grad_value}) {
    for (double& element : *gradient) element += 2.0;
  }
  for (Tensor* gradient : {&p.grad_query, &p.grad_key, &p.grad_value}) gradient->fill_constant(2.0f);
  p.add_gradients(pool, 130, 180);
  p.add_gradients(pool, 0, 1);
  p.add_gradients(pool, 1, 130);
  check_gradient("dq", p.grad_query, expected.grad_query);
  check_gradient("dk", p.grad_key, expected.grad_key);
  check_gradient("dv", p.grad_value, expected.grad_value);
}

TEST_CASE("a row whose lse is -inf neither gets nor gives a gradient") {
  ThreadPool pool(1);
  Problem p({Dtype::fp32, 1, 60, 70, 1, 1, 16}, key_ranges(Mask::full, 60, 70));
  p.forward(pool);
  p.backward(pool);
  p.clear_gradients(pool);
  for (int i = 0; i < 60; ++i) {
    p.lse.set(0, i, 0, 0, -std::numeric_limits<float>::infinity());
    p.query.set(0, i, 0, 3, std::numeric_limits<float>::quiet_NaN());
    p.grad_out.set(0, i, 0, 5, std::numeric_limits<float>::quiet_NaN());
    if (i == 30) p.add_gradients(pool, 0, 70);
  }
  p.clear_gradients(pool);
  p.add_gradients(pool, 0, 70);
  for (const Tensor* gradient : {&p.grad_query, &p.grad_key, &p.grad_value}) {
    const std::vector<double> zeros(static_cast<std::size_t>(gradient->view().elements()), 0.0);
    CHECK(compare(*gradient, zeros).max_abs == 0.0);
  }
}

TEST_CASE("rows and keys that hold NaN leave the gradients of pairs without them alone") {
  ThreadPool pool(1);
  for (Mask mask : {Mask::causal, Mask::window_sinks, Mask::documents, Mask::random}) {
    CAPTURE(name(mask));
    const Shape shape = {Dtype::fp32, 1, 150, 150, 1, 1, 40};
    Problem clean(shape, key_ranges(mask, 150, 150)), dirty(shape, key_ranges(mask, 150, 150));
    clean.forward(pool);
    clean.backward(pool);
    dirty.forward(pool);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr int kBadKey = 70, kBadRow = 90;
    dirty.key.set(0, kBadKey, 0, 1, nan);
    dirty.value.set(0, kBadKey, 0, 2, nan);
    dirty.query.set(0, kBadRow, 0, 3, nan);
    kernels::delta(dirty.out, dirty.grad_out, dirty.delta, pool);
    dirty.grad_out.set(0, kBadRow, 0, 4, nan);
    dirty.clear_gradients(pool);
    dirty.add_gradients(pool, 0, 150);
    for (int i = 0; i < 150; ++i) {
      if (i == kBadRow || sees(clean.ranges[static_cast<std::size_t>(i)], kBadKey)) continue;
      for (int c = 0; c < 40; ++c) CHECK(dirty.grad_query.get(0, i, 0, c) == clean.grad_query.get(0, i, 0, c));
    }
    for (int j = 0; j < 150; ++j) {
      if (j == kBadKey || sees(clean.ranges[kBadRow], j)) continue;
      for (int c = 0; c < 40; ++c) {
        CHECK(dirty.grad_key.get(0, j, 0, c) == clean.grad_key.get(0, j, 0, c));
        CHECK(dirty.grad_value.get(0, j, 0, c) == clean.grad_value.get(0, j, 0, c));
      }
    }
  }
}

}  // namespace
}  // namespace orrery::test
