// The forward kernel against float64, over every kind of mask, size, head_dim and dtype; and inputs whose answer is
// known.
#include <cmath>

#include "kernel/problem.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

constexpr double kTolerance = 2e-6;

void check_forward(const Shape& shape, Mask mask, int threads = 1) {
  INFO(describe(shape, mask));
  ThreadPool pool(threads);
  Problem p(shape, key_ranges(mask, static_cast<int>(shape.query_len), static_cast<int>(shape.key_len)));
  p.forward(pool);
  const auto expected = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
  const Difference out = compare(p.out, expected.out), lse = compare(p.lse, expected.lse, Order::heads_tokens);
  INFO("out " << out << "\nlse " << lse);
  CHECK(out.rel_l2 <= kTolerance);
  CHECK((lse.rel_l2 <= kTolerance || lse.max_abs <= kTolerance));
  CHECK((p.accumulator.padding_intact() && p.row_max.padding_intact() && p.row_sum.padding_intact()));
}

TEST_CASE("forward agrees with float64 under every mask at ragged sizes") {
  const std::int64_t sizes[][2] = {{0, 5},   {5, 0},    {1, 1},    {1, 130},  {2, 65},    {17, 2},
                                   {64, 64}, {65, 130}, {130, 17}, {97, 200}, {200, 193}, {48, 64}};
  const std::int64_t head_dims[] = {1, 8, 24, 64, 80, 128, 192, 256};
  const std::int64_t heads[][2] = {{1, 1}, {4, 2}, {6, 1}, {2, 2}};
  unsigned turn = 0;
  for (Mask mask : kMasks) {
    for (const auto& size : sizes) {
      const Shape shape = {static_cast<Dtype>(turn % 3), 1 + turn % 2,       size[0], size[1], heads[turn % 4][0],
                           heads[turn % 4][1],           head_dims[turn % 8]};
      check_forward(shape, mask);
      ++turn;
    }
    ++turn;  // so that a size meets other head_dims and heads under the next mask
  }
}

TEST_CASE("forward agrees with float64 for every dtype and head_dim") {
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (std::int64_t head_dim : {1, 8, 24, 64, 80, 128, 192, 256}) {
      check_forward({dtype, 1, 130, 150, 2, 1, head_dim}, Mask::causal);
    }
  }
  for (std::int64_t head_dim = 1; head_dim <= 256; ++head_dim) {
    check_forward({Dtype::fp32, 1, 9, 21, 1, 1, head_dim}, Mask::random);
  }
}

TEST_CASE("forward agrees with float64 when several threads share the rows") {
  check_forward({Dtype::fp32, 2, 300, 333, 4, 2, 64}, Mask::causal, 3);
  check_forward({Dtype::bf16, 1, 500, 333, 1, 1, 80}, Mask::random, 3);
}

TEST_CASE("without key ranges every query sees every key") {
  ThreadPool pool(1);
  const Shape shape = {Dtype::fp32, 1, 70, 90, 2, 1, 32};
  Problem p(shape, key_ranges(Mask::full, 70, 90));
  std::vector<std::byte> memory(kernels::attend_scratch_bytes(32, 1, false) + 64);
  void* start = memory.data();
  std::size_t space = memory.size();
  std::align(64, memory.size() - 64, start, space);
  kernels::clear_state(p.state(), pool);
  kernels::attend_forward({p.query, p.key, p.value, p.accumulator, p.row_max, p.row_sum, nullptr, p.scale}, pool,
                          {static_cast<std::byte*>(start), space});
  kernels::normalize(p.state(), p.out, p.lse, pool);
  const auto expected = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
  CHECK(compare(p.out, expected.out).rel_l2 <= kTolerance);
}

TEST_CASE("a row that sees nothing keeps the empty state, and a state that sees nothing more keeps its bits") {
  ThreadPool pool(1);
  Problem p({Dtype::fp32, 1, 100, 80, 2, 1, 24}, key_ranges(Mask::empty_rows, 100, 80));
  p.forward(pool);
  for (int i = 1; i < 100; i += 3) {
    CHECK(p.row_max.get(0, i, 0, 0) == -std::numeric_limits<double>::infinity());
    CHECK(p.row_sum.get(0, i, 0, 0) == 0.0);
    for (int c = 0; c < 24; ++c) CHECK(p.accumulator.get(0, i, 1, c) == 0.0);
    CHECK(p.out.get(0, i, 1, 7) == 0.0);
  }
  const auto accumulator = p.accumulator.memory(), row_sum = p.row_sum.memory();
  p.ranges.assign(100, kernels::KeyRange{});
  p.fold(pool, 0, 80);
  CHECK((p.accumulator.memory() == accumulator && p.row_sum.memory() == row_sum));
}

TEST_CASE("folding the keys block by block equals folding them at once") {
  ThreadPool pool(1);
  for (Mask mask : kMasks) {
    CAPTURE(name(mask));
    Problem whole({Dtype::fp32, 1, 130, 201, 2, 1, 64}, key_ranges(mask, 130, 201));
    whole.forward(pool);
    std::vector<double> out, lse;
    for (int i = 0; i < 130; ++i) {
      for (int h = 0; h < 2; ++h) {
        lse.push_back(whole.lse.get(0, i, h, 0));
        for (int c = 0; c < 64; ++c) out.push_back(whole.out.get(0, i, h, c));
      }
    }
    for (const std::vector<std::int64_t>& cuts : std::vector<std::vector<std::int64_t>>{
             {0, 1, 201}, {0, 64, 128, 201}, {0, 50, 51, 150, 201}, {0, 0, 200, 201}, {0, 100, 201}}) {
      Problem parts({Dtype::fp32, 1, 130, 201, 2, 1, 64}, key_ranges(mask, 130, 201));
      kernels::clear_state(parts.state(), pool);
      for (std::size_t cut = cuts.size() - 1; cut > 0; --cut) parts.fold(pool, cuts[cut - 1], cuts[cut]);
      kernels::normalize(parts.state(), parts.out, parts.lse, pool);
      CHECK(compare(parts.out, out).rel_l2 <= 1e-6);
      CHECK(compare(parts.lse, lse).rel_l2 <= 1e-6);
    }
  }
}

TEST_CASE("a zero query averages the values, and its lse is the log of the number of keys") {
  ThreadPool pool(1);
  for (Mask mask : kMasks) {
    CAPTURE(name(mask));
    Problem p({Dtype::fp32, 1, 100, 150, 1, 1, 8}, key_ranges(mask, 100, 150));
    p.query.fill_constant(0);
    p.value.fill([](auto, auto t, auto, auto c) { return t * 8 + c; });
    p.forward(pool);
    for (int i = 0; i < 100; ++i) {
      double keys = 0, positions = 0;
      for (int j = 0; j < 150; ++j) {
        if (sees(p.ranges[static_cast<std::size_t>(i)], j)) keys += 1, positions += j;
      }
      CHECK(p.lse.get(0, i, 0, 0) == Approx(std::log(keys)).epsilon(1e-6).margin(1e-7));
      for (int c = 0; c < 8 && keys > 0; ++c)
        CHECK(p.out.get(0, i, 0, c) == Approx(8 * positions / keys + c).epsilon(1e-6));
    }
  }
}

TEST_CASE("scores of ten thousand neither overflow nor lose the largest") {
  ThreadPool pool(1);
  for (float sign : {1.0f, -1.0f}) {
    Problem p({Dtype::fp32, 1, 64, 200, 1, 1, 4}, key_ranges(Mask::causal, 64, 200));
    // Integers, so that the scores themselves are exact in fp32.
    p.scale = 1.0f;
    p.query.fill([&](auto, auto t, auto, auto c) { return c == 0 ? sign * 100.0f : static_cast<float>(t % 2); });
    p.key.fill([](auto, auto t, auto, auto c) {
      return c == 0 ? static_cast<float>(t * 37 % 101) : static_cast<float>(t % 3);
    });
    p.forward(pool);
    const auto expected = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
    CHECK(compare(p.out, expected.out).rel_l2 <= kTolerance);
    CHECK(compare(p.lse, expected.lse, Order::heads_tokens).rel_l2 <= kTolerance);
  }
}

TEST_CASE("exp is accurate, underflows to zero and takes -inf") {
  // Two keys of score 0 and x, values 0 and 1: the accumulator is e^x.
  ThreadPool pool(1);
  constexpr int kRows = 20000;
  Problem p({Dtype::fp32, 1, kRows, 2, 1, 1, 1}, std::vector<kernels::KeyRange>(kRows, {0, 2, 0, 0}));
  p.scale = 1.0f;
  p.query.fill([](auto, auto t, auto, auto) { return -110.0 * static_cast<double>(t) / (kRows - 1); });
  p.key.fill([](auto, auto t, auto, auto) { return t; });
  p.value.fill([](auto, auto t, auto, auto) { return t; });
  p.query.set(0, kRows - 1, 0, 0, -std::numeric_limits<float>::infinity());
  p.key.set(0, 0, 0, 0, 1e-30f);
  p.query.set(0, kRows - 2, 0, 0, -1e30f);
  p.forward(pool);
  double worst = 0;
  for (int i = 0; i + 2 < kRows; ++i) {
    const double x = p.query.get(0, i, 0, 0), have = p.accumulator.get(0, i, 0, 0);
    if (x >= -87.33) {
      worst = std::max(worst, std::abs(have / std::exp(x) - 1));
    } else {
      CHECK((have >= 0 && have <= 1.2e-38));
    }
    if (x < -104) CHECK(have == 0.0);
  }
  CHECK(worst <= 2 * 0x1p-23);
  CHECK(p.accumulator.get(0, kRows - 2, 0, 0) == 0.0);
}

TEST_CASE("keys that hold Inf or NaN do not reach the rows that do not see them") {
  ThreadPool pool(1);
  const float bad[] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
  for (Mask mask : {Mask::causal, Mask::window_sinks, Mask::documents, Mask::random}) {
    for (float inf_or_nan : bad) {
      CAPTURE(name(mask), inf_or_nan);
      const Shape shape = {Dtype::fp32, 1, 150, 150, 2, 1, 40};
      Problem clean(shape, key_ranges(mask, 150, 150)), dirty(shape, key_ranges(mask, 150, 150));
      for (int key : {3, 63, 64, 100, 149}) {
        dirty.key.set(0, key, 0, key % 40, inf_or_nan);
        dirty.value.set(0, key, 0, (key + 5) % 40, inf_or_nan);
      }
      clean.forward(pool);
      dirty.forward(pool);
      for (int i = 0; i < 150; ++i) {
        bool sees_bad = false;
        for (int key : {3, 63, 64, 100, 149}) sees_bad |= sees(clean.ranges[static_cast<std::size_t>(i)], key);
        for (int c = 0; c < 40; ++c) {
          const double have = dirty.out.get(0, i, 1, c);
          if (!sees_bad) CHECK(have == clean.out.get(0, i, 1, c));
        }
        CAPTURE(i);
        if (sees_bad && std::isnan(inf_or_nan)) CHECK(std::isnan(dirty.out.get(0, i, 1, 0)));
      }
    }
  }
}

}  // namespace
}  // namespace orrery::test
