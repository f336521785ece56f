// Strategies and their options in text, and what is chosen where nothing is given.
#include <string>

#include "orrery/plan.hpp"
#include "support/catch.hpp"
#include "support/strategies.hpp"

using namespace orrery;
using test::ContainsSubstring;

namespace {

AttentionProblem causal(std::int64_t seq_len = 4096, const char* mask = "causal") {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

Topology linked(int world_size, double bytes_per_second) {
  Topology topology = Topology::single_node(world_size);
  topology.inside_node.bytes_per_second = bytes_per_second;
  return topology;
}

std::string planned(const std::string& strategy, const Topology& topology = Topology::single_node(4)) {
  return make_plan(causal(), topology, {.strategy = strategy, .backward = true}).strategy_text();
}

std::string refused(const std::string& strategy) {
  try {
    return "accepted: " + planned(strategy);
  } catch (const Error& error) {
    return error.code() == ErrorCode::invalid ? error.what() : "another code";
  }
}

}  // namespace

TEST_CASE("the text of a strategy names values for its options, and the plan says all of them") {
  CHECK(planned("ring") == "ring:keys=0,backward-keys=0,keep=yes");
  CHECK(planned("ring:keep=no,keys=0100") == "ring:keys=100,backward-keys=0,keep=no");
  CHECK(planned("ring:keys=auto") == planned("ring"));
  CHECK(planned("gather") == "gather");
  for (const std::string& strategy : test::strategy_texts()) CHECK(planned(planned(strategy)) == planned(strategy));
}

TEST_CASE("options of auto go to the strategy that is chosen, where it has them") {
  CHECK(planned("auto:keys=100,keep=no") == "ring:keys=100,backward-keys=0,keep=no");
  const Plan halo =
      make_plan(causal(4096, "causal+window:100"), Topology::single_node(4), {.strategy = "auto:keys=100"});
  CHECK(halo.strategy_text() == "gather");
  CHECK(halo.reason == make_plan(halo.problem, halo.topology).reason);  // chosen, and not asked for
}

TEST_CASE("an option that there is not, or a value that is none, is refused with what there is") {
  const std::string all = "keys=N|auto, backward-keys=N|auto, keep=yes|no";
  CHECK(refused("ring:key=1") == "strategy ring has no option 'key'; its options are: " + all);
  CHECK(refused("gather:keys=1") == "strategy gather has no option 'keys'; its options are: none");
  CHECK(refused("auto:key=1") == "no strategy has an option 'key'; there are, of ring: " + all);
  for (const char* number : {"", "-1", "1.5", "1k", "99999999999999999999", " 1"}) {
    CHECK(refused("ring:keys=" + std::string(number)) ==
          "'keys=" + std::string(number) + "' is not keys=N|auto, N a whole number of at least 0");
  }
  CHECK(refused("ring:keep=maybe") == "'keep=maybe' is not keep=yes|no");
  CHECK(refused("ring:keep=auto") == "'keep=auto' is not keep=yes|no");
  CHECK(refused("auto:keep=") == "'keep=' is not keep=yes|no");
  CHECK(refused("ring:keep=no,keep=no") == "strategy 'ring:keep=no,keep=no': option keep is given twice");
  for (const char* text : {"ring:", "ring:keys", "ring:=1", "ring:keys=1,", "ring:,keys=1"}) {
    CHECK_THAT(refused(text), ContainsSubstring("is not OPTION=VALUE"));
  }
  CHECK(refused("spiral:keys=1") == "there is no strategy 'spiral'; there are: ring, gather");
}

TEST_CASE("a word is one of those that the option lists") {
  static constexpr StrategyOption kKnown[] = {
      {.name = "over", .kind = OptionKind::word, .standard = "nodes", .meaning = "", .words = "nodes|heads"}};
  StrategyOptions options(kKnown);
  CHECK(usage(kKnown[0]) == "over=nodes|heads");
  CHECK(options.word("over") == "nodes");
  options.give(kKnown[0], "heads");
  CHECK(options.text() == "over=heads");
  CHECK_THROWS_WITH(options.give(kKnown[0], "head"), "'over=head' is not over=nodes|heads");
  CHECK_THROWS_WITH(options.give(kKnown[0], "nodes|heads"), "'over=nodes|heads' is not over=nodes|heads");
}

TEST_CASE(
    "a ring takes blocks together where the topology knows its links, and backward where devices are not shared") {
  CHECK(planned("auto", linked(4, 3e11)) == "ring:keys=65536,backward-keys=65536,keep=yes");
  CHECK(planned("ring:keys=0", linked(4, 3e11)) == "ring:keys=0,backward-keys=65536,keep=yes");
  Topology shared = linked(4, 1e12);
  shared.one_device = true;
  CHECK(planned("auto", shared) == "ring:keys=65536,backward-keys=0,keep=yes");
  Topology nodes = Topology::uniform(4, 2);
  nodes.inside_node.bytes_per_second = 3e11;
  CHECK(planned("auto", nodes) == "ring:keys=0,backward-keys=0,keep=yes");  // between them it is not known
}

TEST_CASE("costs are what layouts and options are chosen by") {
  Costs costs = Costs::cuda();
  costs.filling_keys = 1000;
  CHECK(make_plan(causal(), linked(4, 3e11), {.backward = true}, costs).strategy_text() ==
        "ring:keys=1000,backward-keys=1000,keep=yes");
  // A long document among short ones: dealt out, unless to fetch its rows takes too long.
  std::string lengths = "30000";
  for (int d = 0; d < 30; ++d) lengths += ",1000";
  const AttentionProblem uneven = causal(60'000, ("causal+documents:" + lengths).c_str());
  CHECK(make_plan(uneven, linked(4, 3e11), {}, costs).layout.text() == "zigzag");
  costs.pairs_per_row = 1'000'000;
  CHECK(make_plan(uneven, linked(4, 3e11), {}, costs).layout.text() == "contiguous");
  costs.flops_per_second = 0;
  CHECK_THROWS_WITH(make_plan(causal(), linked(4, 3e11), {}, costs), ContainsSubstring("flops_per_second is 0"));
}
