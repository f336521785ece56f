#include "problem/row_index.hpp"

#include "orrery/layout.hpp"
#include "support/catch.hpp"

namespace orrery {
namespace {

TEST_CASE("the rows in front of a position are those whose positions are smaller") {
  for (const char* name : {"contiguous", "zigzag", "striped:3"}) {
    const Layout layout = Layout::make(name, Mask::parse("causal", 61), 4);
    for (int rank = 0; rank < 4; ++rank) {
      const std::vector<Span> shard = layout.shard(rank);
      const RowIndex index(shard);
      REQUIRE(index.rows() == layout.tokens(rank));
      for (std::int64_t position = -2; position <= 63; ++position) {
        std::int64_t smaller = 0;
        for (const Span& span : shard) {
          for (std::int64_t i = 0; i < span.count; ++i) smaller += span.at(i) < position ? 1 : 0;
        }
        CHECK(index.rows_before(position) == smaller);
      }
    }
  }
}

TEST_CASE("a row index takes spans as long as positions rise, and leaves out empty ones") {
  RowIndex index;
  index.add({5, 0, 1});
  CHECK(index.spans().empty());
  index.add({4, 3, 2});
  CHECK_FALSE(index.takes({8, 1, 1}));
  CHECK(index.takes({9, 1, 1}));
  CHECK(index.rows_in({5, 8}) == Range{1, 2});
}

}  // namespace
}  // namespace orrery
