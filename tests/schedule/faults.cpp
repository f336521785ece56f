// Every fault that the checker knows, by its name, each from one change to a good program.
#include <algorithm>
#include <optional>

#include "backend/coverage/concurrency.hpp"
#include "orrery/check.hpp"
#include "orrery/plan.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

// A ring of two ranks: each sends its block, computes with its own, then with the other's.
struct Ring {
  AttentionProblem problem;
  std::optional<Plan> plan;
  std::vector<RankProgram> programs;

  Ring() {
    problem.seq_len = 24;
    problem.heads = 2;
    problem.kv_heads = 1;
    problem.head_dim = 4;
    problem.mask = Mask::full(problem.seq_len);
    plan.emplace(make_plan(problem, Topology::single_node(2), {"contiguous", "gather"}));
    for (int rank : {0, 1}) programs.push_back(plan->program(rank, Pass::forward));
    REQUIRE(findings().empty());
  }
  std::vector<Finding> findings() const { return check(problem, plan->layout, programs, {}); }
  // The index of rank 1's n-th step of a kind.
  template <typename StepKind>
  std::size_t find(int n = 0) const {
    for (std::size_t i = 0; i < programs[1].steps.size(); ++i) {
      if (std::holds_alternative<StepKind>(programs[1].steps[i]) && n-- == 0) return i;
    }
    throw std::logic_error("no such step");
  }
  template <typename StepKind>
  StepKind& step(int n = 0) {
    return std::get<StepKind>(programs[1].steps[find<StepKind>(n)]);
  }
  auto at(std::size_t i) { return programs[1].steps.begin() + static_cast<std::ptrdiff_t>(i); }
};

std::string first(const std::vector<Finding>& findings) {
  REQUIRE_FALSE(findings.empty());
  return to_text(findings.front());
}

}  // namespace

TEST_CASE("deadlock: a transfer has no partner") {
  Ring ring;
  ring.programs[1].steps.erase(ring.at(ring.find<Exchange>()));
  REQUIRE(to_text(ring.findings().back()) ==
          "deadlock: forward rank 0 step 0: exchange lane 0 send key_value[0:12] to 1 receive fetched_a[0:12] from 1: "
          "waits for ever, for rank 1 (at its end) to receive on lane 0, for rank 1 (at its end) to send on lane 0");
}

TEST_CASE("mismatch: two sides of a transfer disagree on its shape") {
  Ring ring;
  ring.step<Exchange>().sends[0].slice.tokens -= 1;
  REQUIRE_THAT(first(ring.findings()), test::ContainsSubstring("mismatch: forward rank 0 step 0") &&
                                           test::ContainsSubstring("fetched_a[0:12] meets key_value[0:11]"));
}

TEST_CASE("wrong: ranks state different numbers of lanes") {
  Ring ring;
  ring.programs[1].lanes = 3;
  REQUIRE(first(ring.findings()) == "wrong: forward rank 1: states 3 lanes where rank 0 has 1");
}

TEST_CASE("hazard: a step does not wait for the transfer of what it reads") {
  const Ring ring;
  const RankProgram& program = ring.programs[1];
  const auto reader = static_cast<int>(ring.find<Attend>(1)), exchange = static_cast<int>(ring.find<Exchange>());
  REQUIRE(coverage::hazards(program, Dependencies(program)).empty());
  std::vector<std::vector<int>> lists;
  const Dependencies right(program);
  for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
    lists.emplace_back(right.of(step).begin(), right.of(step).end());
  }
  std::erase(lists[static_cast<std::size_t>(reader)], exchange);
  const auto found = coverage::hazards(program, Dependencies(lists));
  REQUIRE(found.size() == 1);
  REQUIRE((found[0].step == reader && found[0].other == exchange));
  REQUIRE(to_text(program, found[0].slice) == "fetched_a[0:12]");
}

TEST_CASE("unwritten: a slice is read before it has arrived") {
  Ring ring;
  for (RankProgram& program : ring.programs)
    std::rotate(program.steps.begin(), program.steps.begin() + 1, program.steps.end());
  REQUIRE_THAT(first(ring.findings()),
               test::ContainsSubstring("unwritten: ") && test::ContainsSubstring("never arrived"));
}

TEST_CASE("wrong: rows are not at the positions that a step claims") {
  Ring ring;
  ring.step<Attend>(1).key_spans[0].begin += 1;
  REQUIRE_THAT(first(ring.findings()), test::ContainsSubstring("wrong: forward rank 1 step") &&
                                           test::ContainsSubstring("not at the positions it claims"));
}

TEST_CASE("missing: an admitted pair is never visited") {
  Ring ring;
  ring.programs[1].steps.erase(ring.at(ring.find<Attend>(0)));
  REQUIRE_THAT(first(ring.findings()), test::ContainsSubstring("missing: forward rank 1: output[0:12]h[0:2] has 0 of"));
}

TEST_CASE("repeated: an admitted pair is visited more than once") {
  Ring ring;
  const Step again = ring.step<Attend>(0);
  ring.programs[1].steps.insert(ring.at(ring.find<Attend>(0)), again);
  REQUIRE_THAT(first(ring.findings()),
               test::ContainsSubstring("repeated: forward rank 1") && test::ContainsSubstring("more than once"));
}

TEST_CASE("needless: a step on which no result depends") {
  Ring ring;
  const Step again = ring.step<Apply>();
  ring.programs[1].steps.insert(ring.at(ring.find<Apply>()), again);
  const auto findings = ring.findings();
  REQUIRE(findings.size() == 1);
  REQUIRE_THAT(first(findings), test::ContainsSubstring("needless: forward rank 1 step"));
}
