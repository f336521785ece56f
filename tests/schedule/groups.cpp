// Strategies over groups of a world's ranks, built by hand: a ring whose members stand in another order than their
// numbers, and groups that share a world and nothing else.
#include <algorithm>
#include <numeric>
#include <random>

#include "orrery/check.hpp"
#include "orrery/plan.hpp"
#include "strategy/gather.hpp"
#include "strategy/ring.hpp"
#include "support/catch.hpp"
#include "support/groups.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"

using namespace orrery;

namespace {

AttentionProblem small(const std::string& mask, std::int64_t seq_len = 40) {
  return test::problem_of(mask, seq_len, {4, 2, 8});
}

std::vector<int> shuffled(int world_size, unsigned seed) {
  std::vector<int> members(static_cast<std::size_t>(world_size));
  std::iota(members.begin(), members.end(), 0);
  std::shuffle(members.begin(), members.end(), std::mt19937(seed));
  return members;
}

std::string findings_of(const Plan& plan, const std::vector<Group>& groups) {
  const bool gaps_travel = plan.problem.mask.has_window() && plan.layout.interleaves();
  std::string text;
  for (const Finding& finding : check(plan.problem, plan.layout, test::programs_over(plan, groups, Pass::forward),
                                      test::programs_over(plan, groups, Pass::backward), {.needless = !gaps_travel})) {
    text += to_text(finding) + "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("a group of all ranks in their order gives the programs of the strategy") {
  for (const std::string& strategy : {std::string("ring"), test::ring_with(24, 24), std::string("gather")}) {
    for (const char* layout : {"contiguous", "zigzag", "striped:2"}) {
      const Plan plan = make_plan(small("causal+window:9"), Topology::single_node(5), {layout, strategy, true});
      for (const Group& group : {Group(5), Group(5, {0, 1, 2, 3, 4})}) {
        for (Pass pass : {Pass::forward, Pass::backward}) {
          const std::vector<RankProgram> programs = test::programs_over(plan, {group}, pass);
          for (int rank = 0; rank < 5; ++rank) {
            REQUIRE(to_text(programs[static_cast<std::size_t>(rank)]) == to_text(plan.program(rank, pass)));
          }
        }
      }
    }
  }
}

TEST_CASE("a ring and a gather over all ranks in any order are proved") {
  for (const std::string& strategy :
       {std::string("ring"), std::string("ring:keep=no"), test::ring_with(20, 1000), std::string("gather")}) {
    for (const char* layout : {"contiguous", "zigzag", "striped", "striped:3"}) {
      for (const char* mask : {"full", "causal", "causal+window:4+sinks:3", "causal+documents:13,0,20,7"}) {
        for (int world_size : {2, 3, 5, 8}) {
          const Group group(world_size, shuffled(world_size, static_cast<unsigned>(world_size)));
          INFO(strategy << " " << layout << " " << mask << " P=" << world_size);
          REQUIRE(findings_of(make_plan(small(mask), Topology::single_node(world_size), {layout, strategy, true}),
                              {group}) == "");
        }
      }
    }
  }
}

TEST_CASE("two groups share a world: each has the documents of its members, and is proved with the other") {
  for (const std::string& strategy : {std::string("ring"), test::ring_with(20, 20), std::string("gather")}) {
    for (const char* mask : {"documents:20,30", "causal+documents:20,30", "causal+window:7+documents:20,30"}) {
      const Plan plan = make_plan(small(mask, 50), Topology::single_node(5), {"contiguous", strategy, true});
      INFO(strategy << " " << mask);
      REQUIRE(findings_of(plan, {Group(5, {1, 0}), Group(5, {4, 2, 3})}) == "");
    }
  }
  // Without documents queries of one group would see keys of the other.
  const Plan plan = make_plan(small("full", 50), Topology::single_node(5), {"contiguous", "ring", true});
  REQUIRE_THAT(findings_of(plan, {Group(5, {1, 0}), Group(5, {4, 2, 3})}), test::ContainsSubstring("missing: "));
}

TEST_CASE("a group has each member once, and places are counted around") {
  const Group group(6, {4, 1, 3});
  CHECK(group.size() == 3);
  CHECK(group.at(-1) == 3);
  CHECK(group.at(3) == 4);
  CHECK(group.place(1) == 1);
  CHECK(group.from(3, 1) == 4);
  CHECK(group.from(4, -2) == 1);
  CHECK_THROWS_WITH(group.place(0), test::ContainsSubstring("rank 0 is no member of the group"));
  CHECK_THROWS_WITH(Group(6, {4, 1, 4}), test::ContainsSubstring("rank 4 at place 2"));
  CHECK_THROWS_WITH(Group(6, {6}), test::ContainsSubstring("rank 6 at place 0"));
  CHECK_THROWS_WITH(Group(6, {}), test::ContainsSubstring("a group of no ranks"));
}
