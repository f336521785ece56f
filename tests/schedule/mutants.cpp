// The checker checked: good programs are damaged in every way that comes to mind, and whatever changes the result must
// be found. Whether a mutant changes the result is decided by another, naive interpreter (token by token, in sequence),
// so that checker and judge share no code.
#include <algorithm>
#include <map>
#include <random>

#include "orrery/check.hpp"
#include "schedule/mutate.hpp"
#include "schedule/naive.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"
#include "support/strategies.hpp"

using namespace orrery;

namespace {

using test::mutate;
using test::Programs;

// Every strategy, and the ring with blocks taken together.
std::vector<std::string> programmed() {
  std::vector<std::string> strategies = test::strategy_names();
  strategies.push_back(test::ring_with(24, 24));
  return strategies;
}

// As CPUs run it, and as CUDA devices do.
Programs programs_of(const Plan& plan, Pass pass, bool fused) {
  Programs programs;
  for (int rank = 0; rank < plan.topology.world_size; ++rank) {
    const RankProgram program = plan.program(rank, pass);
    programs.push_back(fused ? fuse(program) : program);
  }
  return programs;
}

}  // namespace

TEST_CASE("no mutant that changes the result passes") {
  std::mt19937 random(20240607);
  std::map<bool, int> harmful_found, harmless_passed;
  int tried = 0;
  for (const std::string& strategy : programmed()) {
    for (const char* layout_name : {"contiguous", "zigzag", "striped"}) {
      for (const char* mask : {"full", "causal", "causal+window:5", "causal+documents:7,17"}) {
        const AttentionProblem problem = test::problem_to_damage(mask);
        const Plan plan = make_plan(problem, Topology::single_node(3), {layout_name, strategy, true});
        const bool fused = random() % 2 == 0;
        const Programs forward = programs_of(plan, Pass::forward, fused);
        const Programs backward = programs_of(plan, Pass::backward, fused);
        REQUIRE(test::naive_is_right(problem, plan.layout, forward, backward));
        for (int n = 0; n < 200; ++n) {
          Programs mutant_forward = forward, mutant_backward = backward;
          if (!mutate(random() % 2 ? mutant_forward : mutant_backward, random)) continue;
          ++tried;
          const bool passed = check(problem, plan.layout, mutant_forward, mutant_backward, {.needless = false}).empty();
          const bool right = test::naive_is_right(problem, plan.layout, mutant_forward, mutant_backward);
          INFO(strategy << " " << layout_name << " " << mask << (fused ? " fused" : "") << " mutant " << n);
          REQUIRE((right || !passed));
          (right ? harmless_passed : harmful_found)[passed]++;
        }
      }
    }
  }
  // The test has teeth: most mutants do harm, and some harmless ones are let through.
  REQUIRE(tried > 1500);
  REQUIRE(harmful_found[false] > tried / 2);
  REQUIRE(harmless_passed[true] > 0);
}

TEST_CASE("no mutant of a scan that changes the result passes") {
  std::mt19937 random(7);
  int harmful = 0, passed_harmless = 0;
  const AttentionProblem problem = test::problem_to_damage("causal");
  for (const char* layout_name : {"contiguous", "zigzag", "striped:2"}) {
    const Layout layout = Layout::make(layout_name, problem.mask, 3);
    for (Scan scan : {Scan::exclusive, Scan::inclusive, Scan::exclusive_reversed, Scan::inclusive_reversed}) {
      const Programs good = test::scan(problem, layout, 2, scan);
      for (int n = 0; n < 150; ++n) {
        Programs mutant = good;
        if (!mutate(mutant, random)) continue;
        const bool passed = check(problem, layout, mutant, {}, {.needless = false}).empty();
        const bool right = test::naive_is_right(problem, layout, mutant, {});
        INFO(layout_name << " " << to_string(scan) << " mutant " << n);
        REQUIRE((right || !passed));
        harmful += !right;
        passed_harmless += right && passed;
      }
    }
  }
  REQUIRE(harmful > 500);
  REQUIRE(passed_harmless > 0);
}

TEST_CASE("every step of a proved program is needed: dropping any one is found") {
  for (const std::string& strategy : programmed()) {
    for (const char* mask : {"full", "causal", "causal+window:5"}) {
      const bool fused = mask == std::string_view("causal");
      const AttentionProblem problem = test::problem_to_damage(mask);
      const Plan plan = make_plan(problem, Topology::single_node(3), {"zigzag", strategy, true});
      Programs forward = programs_of(plan, Pass::forward, fused), backward = programs_of(plan, Pass::backward, fused);
      for (Programs* pass : {&forward, &backward}) {
        for (std::size_t rank = 0; rank < 3; ++rank) {
          for (std::size_t step = 0; step < (*pass)[rank].steps.size(); ++step) {
            auto& steps = (*pass)[rank].steps;
            const Step dropped = steps[step];
            steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(step));
            INFO(strategy << " " << mask << " rank " << rank << " step " << step);
            REQUIRE_FALSE(check(problem, plan.layout, forward, backward).empty());
            steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(step), dropped);
          }
        }
      }
    }
  }
}

TEST_CASE("two ends of a transfer that have its rows in different orders are found") {
  const AttentionProblem problem = test::problem_to_damage("causal");
  const Plan plan = make_plan(problem, Topology::single_node(2), {"contiguous", "ring"});
  Programs programs{plan.program(0, Pass::forward), plan.program(1, Pass::forward)};
  for (Step& step : programs[1].steps) {
    if (auto* exchange = std::get_if<Exchange>(&step)) exchange->order = RowOrder::by_token;
  }
  const auto findings = check(problem, plan.layout, programs, {});
  REQUIRE_FALSE(findings.empty());
  REQUIRE(findings[0].fault == Fault::mismatch);
}

TEST_CASE("a repeated exchange, and a step that changes nothing, are found to be needless") {
  const AttentionProblem problem = test::problem_to_damage("causal");
  const Plan plan = make_plan(problem, Topology::single_node(2), {"contiguous", "ring"});
  Programs programs{plan.program(0, Pass::forward), plan.program(1, Pass::forward)};
  REQUIRE(check(problem, plan.layout, programs, {}).empty());
  for (RankProgram& program : programs) {
    const auto exchange = std::find_if(program.steps.begin(), program.steps.end(),
                                       [](const Step& s) { return std::holds_alternative<Exchange>(s); });
    program.steps.insert(exchange, Step(*exchange));
  }
  const auto findings = check(problem, plan.layout, programs, {});
  REQUIRE(findings.size() == 1);
  REQUIRE(findings[0].fault == Fault::needless);
}
