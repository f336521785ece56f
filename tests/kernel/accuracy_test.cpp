// What is folded in late and is small must still count: a row whose first block holds nearly all of its softmax meets
// many blocks of which each term is below the last bit of its accumulator.
#include <cmath>

#include "kernel/problem.hpp"
#include "support/catch.hpp"

using namespace orrery;
using namespace orrery::test;

TEST_CASE("small terms after large ones are not lost") {
  constexpr int kDim = 8, kKeys = 8192;
  constexpr float kLargeScore = 9.5f;
  Tensor query(Dtype::fp32, 1, 1, 1, kDim), key(Dtype::fp32, 1, kKeys + 1, 1, kDim),
      value(Dtype::fp32, 1, kKeys + 1, 1, kDim);
  query.fill([](auto, auto, auto, auto c) { return c == 0 ? 1.0 : 0.0; });
  key.fill([&](auto, auto t, auto, auto c) { return c == 0 && t == 0 ? kLargeScore : 0.0f; });
  value.fill([](auto, auto t, auto, auto c) { return t == 0 ? 1.0 : 1.0 + 0.125 * static_cast<double>(c); });
  Tensor accumulator(Dtype::fp32, 1, 1, 1, kDim), row_max(Dtype::fp32, 1, 1, 1, 1), row_sum(Dtype::fp32, 1, 1, 1, 1);
  ThreadPool pool(1);
  kernels::clear_state({accumulator, row_max, row_sum}, pool);
  hwy::AlignedFreeUniquePtr<std::byte[]> scratch =
      hwy::AllocateAligned<std::byte>(kernels::attend_scratch_bytes(kDim, 1, false));
  // The one large key first, the many small ones after it.
  for (const auto& [begin, count] : {std::pair{0, 1}, std::pair{1, kKeys}}) {
    TensorView k = key, v = value;
    k.data = k.at(0, begin, 0), v.data = v.at(0, begin, 0);
    k.tokens = v.tokens = count;
    kernels::attend_forward({query, k, v, accumulator, row_max, row_sum, nullptr, 1.0f}, pool,
                            {scratch.get(), kernels::attend_scratch_bytes(kDim, 1, false)});
  }
  const double large = std::exp(static_cast<double>(kLargeScore)), sum = large + kKeys;
  for (int c = 0; c < kDim; ++c) {
    const double expected = (large + kKeys * (1.0 + 0.125 * c)) / sum;
    const double found = accumulator.get(0, 0, 0, c) / row_sum.get(0, 0, 0, 0);
    CHECK(std::abs(found - expected) < 1e-5 * expected);
  }
}
