#include "core/overlap.hpp"

#include <random>
#include <set>
#include <vector>

#include "support/catch.hpp"

using namespace orrery;

namespace {

// The bytes of a tensor, each as often as an element covers it.
std::multiset<std::intptr_t> bytes_of(const TensorView& t) {
  std::multiset<std::intptr_t> bytes;
  const auto row = t.width * static_cast<std::int64_t>(size_of(t.dtype));
  for (std::int64_t b = 0; b < t.batch; ++b) {
    for (std::int64_t n = 0; n < t.tokens; ++n) {
      for (std::int64_t h = 0; h < t.heads; ++h) {
        for (std::int64_t i = 0; i < row; ++i) bytes.insert(reinterpret_cast<std::intptr_t>(t.at(b, n, h) + i));
      }
    }
  }
  return bytes;
}

}  // namespace

TEST_CASE("tensors overlap exactly when they have a byte in common") {
  std::mt19937 random(7);
  const auto up_to = [&](int most) { return static_cast<std::int64_t>(random() % (static_cast<unsigned>(most) + 1)); };
  std::vector<std::byte> memory(4096);
  int together = 0, apart = 0, folded = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto any = [&] {
      const Dtype dtype = up_to(1) == 0 ? Dtype::fp32 : Dtype::bf16;
      const std::int64_t stride = i % 2 == 0 ? 4 : 0;  // often too narrow, else mostly wide enough
      return TensorView{memory.data() + 2 * up_to(120),
                        dtype,
                        up_to(3),
                        up_to(4),
                        up_to(3),
                        1 + up_to(3),
                        stride + up_to(60),
                        stride + up_to(20),
                        stride + up_to(8)};
    };
    const TensorView a = any(), b = any();
    const auto of_a = bytes_of(a), of_b = bytes_of(b);
    const std::set<std::intptr_t> once(of_a.begin(), of_a.end());
    REQUIRE(overlaps_itself(a) == (once.size() < of_a.size()));
    const bool common = std::any_of(of_b.begin(), of_b.end(), [&](std::intptr_t byte) { return once.count(byte) > 0; });
    REQUIRE(overlap(a, b) == common);
    REQUIRE(overlap(b, a) == common);
    (common ? together : apart) += 1;
    folded += once.size() < of_a.size() ? 1 : 0;
  }
  REQUIRE(together > 300);
  REQUIRE(apart > 300);
  REQUIRE(folded > 300);
}

TEST_CASE("queries, keys and values packed in one allocation are apart, at any size") {
  constexpr std::int64_t kTokens = 1 << 20, kHeads = 64, kKvHeads = 8, kWidth = 128;
  constexpr std::int64_t kToken = (kHeads + 2 * kKvHeads) * kWidth;
  auto* const base = reinterpret_cast<std::byte*>(std::intptr_t{1} << 40);  // never touched
  const auto part = [&](std::int64_t first_head, std::int64_t heads) {
    return TensorView{
        base + 2 * first_head * kWidth, Dtype::bf16, 2, kTokens, heads, kWidth, kTokens * kToken, kToken, kWidth};
  };
  const TensorView query = part(0, kHeads), key = part(kHeads, kKvHeads), value = part(kHeads + kKvHeads, kKvHeads);
  REQUIRE_FALSE(overlap(query, key));
  REQUIRE_FALSE(overlap(query, value));
  REQUIRE_FALSE(overlap(key, value));
  REQUIRE_FALSE(overlaps_itself(query));
  REQUIRE(overlap(part(0, kHeads + 1), key));
}

TEST_CASE("a row that is read for every token is one memory, as an output of no stride is") {
  std::vector<float> row(64);
  TensorView t = TensorView::dense(row.data(), Dtype::fp32, 1, 8, 2, 4);
  REQUIRE_FALSE(overlaps_itself(t));
  t.token_stride = 0;
  REQUIRE(overlaps_itself(t));
}
