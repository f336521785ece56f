#include <bit>

#include "kernel/problem.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr Dtype kDtypes[] = {Dtype::fp32, Dtype::bf16, Dtype::fp16};

struct OwnedState {
  Tensor accumulator, row_max, row_sum;
  OwnedState(std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width)
      : accumulator(Dtype::fp32, batch, tokens, heads, width),
        row_max(Dtype::fp32, batch, tokens, heads, 1),
        row_sum(Dtype::fp32, batch, tokens, heads, 1) {}
  operator kernels::State() const { return {accumulator, row_max, row_sum}; }
};

TEST_CASE("clear zeroes rows of any dtype and nothing else") {
  ThreadPool pool(2);
  for (Dtype dtype : kDtypes) {
    Tensor tensor(dtype, 2, 33, 3, 13);
    kernels::clear(tensor, pool);
    CHECK(compare(tensor, std::vector<double>(2 * 33 * 3 * 13, 0.0)).max_abs == 0.0);
    CHECK(tensor.padding_intact());
  }
}

TEST_CASE("merge of the states of two key sets is the state of both") {
  ThreadPool pool(2);
  for (Mask mask : kMasks) {
    CAPTURE(name(mask));
    const Shape shape = {Dtype::fp32, 2, 50, 120, 4, 2, 21};
    Problem first(shape, key_ranges(mask, 50, 120)), second(shape, key_ranges(mask, 50, 120));
    kernels::clear_state(first.state(), pool);
    kernels::clear_state(second.state(), pool);
    first.fold(pool, 0, 70);
    second.fold(pool, 70, 120);
    kernels::merge(first.state(), second.state(), pool);
    kernels::normalize(first.state(), first.out, first.lse, pool);
    const auto expected = kernels::reference::forward(first.query, first.key, first.value, first.scale, first.admits());
    CHECK(compare(first.out, expected.out).rel_l2 <= 2e-6);
    const Difference lse = compare(first.lse, expected.lse, Order::heads_tokens);
    CHECK((lse.rel_l2 <= 2e-6 || lse.max_abs <= 2e-6));
    CHECK(first.accumulator.padding_intact());
  }
}

TEST_CASE("merge with an empty state changes nothing, and two empty states are empty") {
  ThreadPool pool(1);
  OwnedState filled(1, 3, 2, 19), empty(1, 3, 2, 19), other(1, 3, 2, 19);
  filled.accumulator.fill_normal(5);
  filled.row_max.fill_constant(3.5f);
  filled.row_sum.fill_constant(7.0f);
  kernels::clear_state(empty, pool);
  kernels::clear_state(other, pool);

  kernels::merge(empty, other, pool);
  CHECK(empty.row_max.get(0, 2, 1, 0) == kMinusInfinity);
  CHECK(empty.row_sum.get(0, 2, 1, 0) == 0.0);
  CHECK(empty.accumulator.get(0, 2, 1, 18) == 0.0);

  const auto before = filled.accumulator.memory();
  kernels::merge(filled, empty, pool);
  CHECK(filled.accumulator.memory() == before);
  kernels::merge(empty, filled, pool);
  CHECK(empty.accumulator.memory() == before);
  CHECK((empty.row_max.get(0, 1, 0, 0) == 3.5 && empty.row_sum.get(0, 1, 0, 0) == 7.0));
}

TEST_CASE("merge rescales the smaller maximum, however far apart they are") {
  ThreadPool pool(1);
  OwnedState low(1, 1, 1, 5), high(1, 1, 1, 5);
  low.accumulator.fill_constant(4.0f), low.row_max.fill_constant(-1e4f), low.row_sum.fill_constant(2.0f);
  high.accumulator.fill_constant(3.0f), high.row_max.fill_constant(1e4f), high.row_sum.fill_constant(1.5f);
  kernels::merge(low, high, pool);
  CHECK((low.row_max.get(0, 0, 0, 0) == 1e4 && low.row_sum.get(0, 0, 0, 0) == 1.5));
  CHECK(low.accumulator.get(0, 0, 0, 4) == 3.0);
}

TEST_CASE("normalize divides once, rounds to out's dtype, and gives empty rows 0 and -inf") {
  ThreadPool pool(1);
  for (Dtype dtype : kDtypes) {
    OwnedState state(1, 4, 1, 37);
    Tensor out(dtype, 1, 4, 1, 37), lse(Dtype::fp32, 1, 4, 1, 1);
    kernels::clear_state(state, pool);
    for (int t = 0; t < 4; t += 2) {
      state.row_max.set(0, t, 0, 0, 1.25f);
      state.row_sum.set(0, t, 0, 0, 3.0f);
      for (int c = 0; c < 37; ++c) state.accumulator.set(0, t, 0, c, static_cast<float>(c));
    }
    kernels::normalize(state, out, lse, pool);
    Tensor expected(dtype, 1, 4, 1, 37);
    expected.fill([](auto, auto t, auto, auto c) { return t % 2 ? 0.0f : static_cast<float>(c) / 3.0f; });
    CHECK(out.memory() == expected.memory());
    CHECK(lse.get(0, 0, 0, 0) == Approx(1.25 + std::log(3.0)).epsilon(1e-7));
    CHECK(lse.get(0, 1, 0, 0) == kMinusInfinity);
  }
}

TEST_CASE("delta is +inf where grad_out is not finite, and NaN where only out is not") {
  ThreadPool pool(2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Tensor out(Dtype::bf16, 1, 4, 1, 24), grad_out(Dtype::bf16, 1, 4, 1, 24), delta(Dtype::fp32, 1, 4, 1, 1);
  out.fill_normal(1);
  grad_out.fill_normal(2);
  out.set(0, 1, 0, 20, nan);
  out.set(0, 2, 0, 20, nan);
  grad_out.set(0, 2, 0, 3, nan);
  grad_out.set(0, 3, 0, 23, -std::numeric_limits<float>::infinity());
  kernels::delta(out, grad_out, delta, pool);
  CHECK(std::isfinite(delta.get(0, 0, 0, 0)));
  CHECK(std::isnan(delta.get(0, 1, 0, 0)));
  CHECK(delta.get(0, 2, 0, 0) == std::numeric_limits<double>::infinity());
  CHECK(delta.get(0, 3, 0, 0) == std::numeric_limits<double>::infinity());
}

TEST_CASE("delta is the row sum of out times its gradient") {
  ThreadPool pool(2);
  for (Dtype dtype : kDtypes) {
    for (std::int64_t width : {1, 7, 64, 100, 256}) {
      Tensor out(dtype, 2, 20, 3, width), grad_out(dtype, 2, 20, 3, width), delta(Dtype::fp32, 2, 20, 3, 1);
      out.fill_normal(1);
      grad_out.fill_normal(2);
      kernels::delta(out, grad_out, delta, pool);
      std::vector<double> expected;
      for (int b = 0; b < 2; ++b) {
        for (int t = 0; t < 20; ++t) {
          for (int h = 0; h < 3; ++h) {
            double sum = 0;
            for (std::int64_t c = 0; c < width; ++c) sum += out.get(b, t, h, c) * grad_out.get(b, t, h, c);
            expected.push_back(sum);
          }
        }
      }
      CHECK(compare(delta, expected).rel_l2 <= 1e-6);
      CHECK(delta.padding_intact());
    }
  }
}

TEST_CASE("add sums row by row") {
  ThreadPool pool(2);
  Tensor into(Dtype::fp32, 2, 21, 2, 29), from(Dtype::fp32, 2, 21, 2, 29, 5);
  into.fill_normal(1);
  from.fill_normal(2);
  std::vector<double> expected;
  for (int row = 0; row < 2 * 21 * 2; ++row) {
    for (int c = 0; c < 29; ++c) {
      const int b = row / 42, t = row / 2 % 21, h = row % 2;
      expected.push_back(static_cast<float>(into.get(b, t, h, c) + from.get(b, t, h, c)));
    }
  }
  kernels::add(into, from, pool);
  CHECK(compare(into, expected).max_abs == 0.0);
  CHECK(into.padding_intact());
}

TEST_CASE("copy casts between all dtypes exactly as one number at a time") {
  ThreadPool pool(1);
  constexpr std::int64_t kWidth = 1 << 16;
  for (Dtype from_dtype : kDtypes) {
    Tensor from(from_dtype, 1, 2, 1, kWidth + 3);
    std::mt19937 generator(11);
    for (std::int64_t i = 0; i < kWidth + 3; ++i) {
      // Every 16-bit pattern; for fp32, random patterns and halfway cases of the two narrow formats.
      std::uint32_t bits =
          from_dtype == Dtype::fp32 ? static_cast<std::uint32_t>(generator()) : static_cast<std::uint32_t>(i);
      if (from_dtype == Dtype::fp32 && i % 4 == 1) bits = (bits & 0xffff0000u) | 0x8000u;
      if (from_dtype == Dtype::fp32 && i % 4 == 2) bits = (bits & 0x8fffe000u) + 0x34001000u;
      for (int t = 0; t < 2; ++t)
        std::memcpy(from.view().at(0, t, 0) + i * static_cast<std::int64_t>(size_of(from_dtype)), &bits,
                    size_of(from_dtype));
    }
    for (Dtype to_dtype : kDtypes) {
      CAPTURE(to_string(from_dtype), to_string(to_dtype));
      Tensor to(to_dtype, 1, 2, 1, kWidth + 3), expected(to_dtype, 1, 2, 1, kWidth + 3);
      kernels::copy(to, from, pool);
      std::int64_t different = 0;
      for (std::int64_t i = 0; i < kWidth + 3; ++i) {
        expected.set(0, 1, 0, i, static_cast<float>(from.get(0, 1, 0, i)));
        const auto size = static_cast<std::int64_t>(size_of(to_dtype));
        const bool both_nan = std::isnan(to.get(0, 1, 0, i)) && std::isnan(expected.get(0, 1, 0, i));
        const bool same = std::memcmp(to.view().at(0, 1, 0) + i * size, expected.view().at(0, 1, 0) + i * size,
                                      size_of(to_dtype)) == 0;
        different += !same && !both_nan;
      }
      CHECK(different == 0);
      CHECK(to.padding_intact());
    }
  }
}

TEST_CASE("compose scales the earlier matrix by the later decay, and not the other way round") {
  ThreadPool pool(2);
  constexpr int kRows = 3, kColumns = 18;
  Tensor matrix(Dtype::fp32, 1, 5, 2, kRows * kColumns), decay(Dtype::fp32, 1, 5, 2, kRows);
  Tensor earlier_matrix(Dtype::fp32, 1, 5, 2, kRows * kColumns), earlier_decay(Dtype::fp32, 1, 5, 2, kRows);
  matrix.fill_normal(1), decay.fill_normal(2), earlier_matrix.fill_normal(3), earlier_decay.fill_normal(4);
  std::vector<double> expected_matrix, expected_decay;
  for (int t = 0; t < 5; ++t) {
    for (int h = 0; h < 2; ++h) {
      for (int r = 0; r < kRows; ++r) {
        expected_decay.push_back(decay.get(0, t, h, r) * earlier_decay.get(0, t, h, r));
        for (int c = r * kColumns; c < (r + 1) * kColumns; ++c) {
          expected_matrix.push_back(matrix.get(0, t, h, c) + decay.get(0, t, h, r) * earlier_matrix.get(0, t, h, c));
        }
      }
    }
  }
  kernels::compose({matrix, decay}, {earlier_matrix, earlier_decay}, pool);
  CHECK(compare(matrix, expected_matrix).rel_l2 <= 1e-6);
  CHECK(compare(decay, expected_decay).rel_l2 <= 1e-6);
  CHECK((matrix.padding_intact() && decay.padding_intact()));
}

}  // namespace
}  // namespace orrery::test
