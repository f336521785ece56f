// What callers do with a layout: cut a whole sequence into shards, put it together again, and shift it by a token.
#include <numeric>

#include "definition.hpp"
#include "orrery/layout.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

std::vector<int> counting(std::int64_t count) {
  std::vector<int> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

}  // namespace

TEST_CASE("unshard undoes shard") {
  for (const char* text : {"contiguous", "zigzag", "striped", "striped:4"}) {
    for (const char* mask_text : {"causal", "documents:10,0,3,24"}) {
      for (int world_size : {1, 2, 5, 50}) {
        for (std::int64_t width : {1, 3}) {
          const Layout layout = Layout::make(text, Mask::parse(mask_text, 37), world_size);
          const std::vector<int> whole = counting(37 * width);
          std::vector<std::vector<int>> shards;
          for (int rank = 0; rank < world_size; ++rank) {
            shards.push_back(shard(std::span<const int>(whole), layout, rank, width));
          }
          REQUIRE(unshard(std::span<const std::vector<int>>(shards), layout, width) == whole);
        }
      }
    }
  }
}

TEST_CASE("a shard holds the rows of the rank's positions") {
  const Layout layout = Layout::make("zigzag", Mask::full(8), 2);
  const std::vector<int> whole = counting(16);
  CHECK(positions(layout, 0) == std::vector<std::int64_t>{0, 1, 6, 7});
  CHECK(shard(std::span<const int>(whole), layout, 0, 2) == std::vector<int>{0, 1, 2, 3, 12, 13, 14, 15});
}

TEST_CASE("values of the wrong size are refused with both sizes") {
  const Layout layout = Layout::make("contiguous", Mask::full(8), 2);
  const std::vector<int> short_values = counting(7);
  CHECK_THROWS_WITH(shard(std::span<const int>(short_values), layout, 0),
                    ContainsSubstring("7 values given for 8 tokens"));
  const std::vector<std::vector<int>> one(1), uneven = {counting(4), counting(3)};
  CHECK_THROWS_WITH(unshard(std::span<const std::vector<int>>(one), layout), ContainsSubstring("1 shards given for 2"));
  CHECK_THROWS_WITH(unshard(std::span<const std::vector<int>>(uneven), layout),
                    ContainsSubstring("rank 1 gave 3 values for 4 tokens"));
  CHECK_THROWS_WITH(roll(std::span<const int>(short_values), Mask::full(8), 1, -1),
                    ContainsSubstring("7 values given for 8 tokens"));
}

TEST_CASE("roll shifts inside documents and fills what leaves them") {
  const std::vector<int> tokens = {10, 11, 12, 20, 21, 30};
  const auto rolled = [&](const char* mask, std::int64_t shift) {
    return roll(std::span<const int>(tokens), Mask::parse(mask, 6), shift, -1);
  };
  CHECK(rolled("documents:3,2,0,1", 1) == std::vector<int>{11, 12, -1, 21, -1, -1});
  CHECK(rolled("documents:3,2,0,1", -1) == std::vector<int>{-1, 10, 11, -1, 20, -1});
  CHECK(rolled("causal", 1) == std::vector<int>{11, 12, 20, 21, 30, -1});
  CHECK(rolled("causal", 0) == tokens);
  CHECK(rolled("causal", 100) == std::vector<int>(6, -1));
}

TEST_CASE("rolled forth and back, a token is where it was unless it left its document") {
  const Mask mask = Mask::parse("documents:7,1,12", 20);
  const std::vector<int> whole = counting(20);
  const std::vector<int> forth = roll(std::span<const int>(whole), mask, 2, -1);
  const std::vector<int> back = roll(std::span<const int>(forth), mask, -2, -1);
  const std::vector<std::int64_t> bounds = {0, 7, 8, 20};
  for (std::size_t d = 0; d < 3; ++d) {
    for (std::int64_t p = bounds[d]; p < bounds[d + 1]; ++p) CHECK(back[p] == (p >= bounds[d] + 2 ? p : -1));
  }
}

}  // namespace orrery::test
