// The strategy of docs/add-a-strategy.md: its code is taken from the page when this program is built, and its line
// stands in the registry of this program. What is compiled beside this file and walks the registry meets it as any
// other.
#include <string>
#include <vector>

#include "orrery/check.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

const std::vector<std::string> kMasks = {"full", "causal", "causal+window:9",
                                         "causal+window:6+sinks:2+documents:13,0,20,7"};

}  // namespace

TEST_CASE("the strategy of the page is listed with its option, in the order of the registry") {
  CHECK(strategy_names().back() == "pull");
  CHECK(strategy_texts().back() == "pull:ahead=no");
  CHECK(usage(find_strategy("pull").options[0]) == "ahead=yes|no");
  CHECK_THROWS_WITH(make_plan(problem_of("full", 40), Topology::single_node(2), {.strategy = "pull:behind=yes"}),
                    "strategy pull has no option 'behind'; its options are: ahead=yes|no");
}

TEST_CASE("the strategy of the page is proved") {
  for (const char* strategy : {"pull", "pull:ahead=no"}) {
    for (const char* layout : {"contiguous", "zigzag", "striped:3"}) {
      for (const std::string& mask : kMasks) {
        for (int world_size : {1, 2, 3, 5, 8}) {
          INFO(strategy << " " << layout << " " << mask << " P=" << world_size);
          const Plan plan =
              make_plan(problem_of(mask, 40), Topology::single_node(world_size), {layout, strategy, true});
          const bool gaps_travel = plan.problem.mask.has_window() && plan.layout.interleaves();
          const std::vector<Finding> findings = check(plan, {.needless = !gaps_travel});
          REQUIRE((findings.empty() ? "" : to_text(findings.front())) == "");
        }
      }
    }
  }
}

TEST_CASE("the strategy of the page matches float64") {
  for (const char* strategy : {"pull", "pull:ahead=no"}) {
    for (const std::string& mask : kMasks) {
      const Sharded run = run_sharded(problem_of(mask, 40), {"zigzag", strategy, true}, 3);
      INFO(strategy << " " << mask << ": " << run.verification.worst);
      REQUIRE(run.verification.right());
    }
  }
}

TEST_CASE("without looking ahead the strategy of the page needs less memory, and sends as much") {
  const AttentionProblem problem = problem_of("full", 64);
  const auto costs = [&](const char* strategy) {
    const Plan plan = make_plan(problem, Topology::single_node(8), {"contiguous", strategy, true});
    return cost(plan.program(3, Pass::backward), problem);
  };
  const std::int64_t block = 2 * 8 * 2 * 16 * 4;  // of key-values; of their gradients as well
  CHECK(costs("pull").workspace_bytes - costs("pull:ahead=no").workspace_bytes == 3 * block);
  CHECK(costs("pull").bytes_sent == costs("pull:ahead=no").bytes_sent);
}
