// Who sees the keys of a shard, compared with a walk over all pairs.
#include "definition.hpp"
#include "orrery/layout.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

std::vector<std::int64_t> members(const std::vector<Range>& ranges) {
  std::vector<std::int64_t> all;
  for (const Range& range : ranges) {
    REQUIRE((all.empty() || all.back() + 1 < range.begin));  // sorted, with a gap between neighbours
    for (std::int64_t i = range.begin; i < range.end; ++i) all.push_back(i);
  }
  return all;
}

void check(const Definition& definition, const char* text, int world_size) {
  const Mask mask = Mask::parse(definition.text(), definition.seq_len);
  const Layout layout = Layout::make(text, mask, world_size);
  for (int source = 0; source < world_size; ++source) {
    std::vector<std::int64_t> seeing, owners;
    for (std::int64_t i = 0; i < definition.seq_len; ++i) {
      bool sees = false;
      for (const std::int64_t j : positions(layout, source)) sees = sees || definition.admits(i, j);
      if (sees) seeing.push_back(i);
      if (sees) owners.push_back(layout.owner(i).first);
    }
    std::sort(owners.begin(), owners.end());
    owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
    INFO(definition.text() << " " << text << " over " << world_size << " ranks, keys of rank " << source);
    const std::vector<Range> found = positions_seeing(mask, layout.shard(source));
    REQUIRE(members(found) == seeing);
    REQUIRE(members(layout.owners(found)) == owners);
  }
}

}  // namespace

TEST_CASE("the positions that see a shard's keys, and their owners, are those of a walk over all pairs") {
  Random random(11);
  for (int round = 0; round < 1500; ++round) {
    const std::int64_t seq_len = 1 + random.below(random.chance(20) ? 90 : 25);
    const Definition definition = random.mask(seq_len);
    const int world_size = static_cast<int>(1 + random.below(9));
    for (const char* layout : {"contiguous", "zigzag", "striped", "striped:3"}) check(definition, layout, world_size);
  }
}

TEST_CASE("the most tokens of a rank are found without asking each rank for each document") {
  Random random(12);
  for (int round = 0; round < 300; ++round) {
    const Definition definition = random.mask(1 + random.below(90));
    const Mask mask = Mask::parse(definition.text(), definition.seq_len);
    for (const char* text : {"contiguous", "zigzag", "striped", "striped:3"}) {
      const Layout layout = Layout::make(text, mask, static_cast<int>(1 + random.below(9)));
      std::int64_t most = 0;
      for (int rank = 0; rank < layout.world_size(); ++rank) most = std::max(most, layout.tokens(rank));
      REQUIRE(layout.max_tokens() == most);
    }
  }
}

}  // namespace orrery::test
