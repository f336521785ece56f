// Masks of a program's own: attends name them by index, and the problem's is not one of them.
#include "orrery/check.hpp"
#include "orrery/error.hpp"
#include "schedule/mutate.hpp"
#include "schedule/naive.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

struct Example {
  AttentionProblem problem;
  std::vector<RankProgram> forward, backward;

  explicit Example(const char* mask = "causal", const char* own = "causal+documents:10,14") {
    problem.seq_len = 24;
    problem.heads = 2;
    problem.kv_heads = 1;
    problem.head_dim = 4;
    problem.mask = Mask::parse(mask, 24);
    forward = {test::by_two_masks(problem, 10, own, Pass::forward)};
    backward = {test::by_two_masks(problem, 10, own, Pass::backward)};
  }
  Layout layout() const { return Layout::make("contiguous", problem.mask, 1); }
  std::string first(const std::vector<RankProgram>& gradients) const {
    const auto findings = check(problem, layout(), forward, gradients);
    return findings.empty() ? "" : to_text(findings.front());
  }
  std::string first() const { return first(backward); }
};

}  // namespace

TEST_CASE("a program whose attends name two masks is proved, printed, and costs what the problem's mask asks for") {
  const Example e;
  REQUIRE(e.first() == "");
  REQUIRE(test::naive_is_right(e.problem, e.layout(), e.forward, e.backward));
  REQUIRE(cost(e.forward[0], e.problem).pairs == 2 * 24 * 25 / 2);
  REQUIRE(to_text(e.forward[0]) == R"(forward rank 0 of 1
  input query: query fp32 24 tokens x 2 heads
  input key_value: key_value fp32 24 tokens x 1 heads
  output output: output fp32 24 tokens x 2 heads
  workspace state: state fp32 24 tokens x 2 heads
  mask 1: causal+documents:10,14
  0 clear state[0:24]
  1 attend query[0:24] x key_value[0:24] into state[0:24] at {0+24} x {0+24} mask 1
  2 attend query[10:24] x key_value[0:10] into state[10:24] at {10+14} x {0+10} mask-free
  3 normalize state[0:24] to output[0:24]
)");
}

TEST_CASE("pairs that two masks admit both, or that the problem's does not, are found in both passes") {
  using test::ContainsSubstring;
  REQUIRE_THAT(Example("causal", "causal").first(), ContainsSubstring("more than once, by masks"));
  REQUIRE_THAT(Example("causal+documents:10,14", "causal+documents:10,14").first(), ContainsSubstring("wrong: "));
  REQUIRE_THAT(Example("causal", "causal+documents:11,13").first(), ContainsSubstring("more than once, by masks"));
  REQUIRE_THAT(Example("causal", "causal+documents:9,15").first(), ContainsSubstring("missing: "));
  Example e;
  e.backward = Example("causal", "causal").backward;
  REQUIRE_THAT(e.first(), ContainsSubstring("backward rank 0"));
}

TEST_CASE("no mutant of a program with two masks that changes the result passes") {
  std::mt19937 random(11);
  int harmful = 0;
  for (int n = 0; n < 600; ++n) {
    Example e;
    if (!test::mutate(random() % 2 ? e.forward : e.backward, random)) continue;
    if (random() % 4 == 0) {
      for (Step& step : e.forward[0].steps) {
        if (Attending* s = attending(step)) s->mask = 1 - s->mask;
      }
    }
    const bool passed = check(e.problem, e.layout(), e.forward, e.backward, {.needless = false}).empty();
    const bool right = test::naive_is_right(e.problem, e.layout(), e.forward, e.backward);
    INFO("mutant " << n);
    REQUIRE((right || !passed));
    harmful += !right;
  }
  REQUIRE(harmful > 200);
}

TEST_CASE("a mask that does not exist, of another length, or not on all ranks, is refused") {
  Example e;
  attending(e.forward[0].steps[1])->mask = 2;
  REQUIRE_THAT(e.first(), test::ContainsSubstring("no mask 2"));
  e = Example();
  e.forward[0].masks[0] = Mask::causal(23);
  REQUIRE_THAT(e.first(), test::ContainsSubstring("the mask causal is for 23 tokens of 24"));

  AttentionProblem problem = e.problem;
  const Plan plan = make_plan(problem, Topology::single_node(2), {"contiguous", "ring"});
  std::vector<RankProgram> programs{plan.program(0, Pass::forward), plan.program(1, Pass::forward)};
  programs[1].masks.push_back(Mask::full(24));
  const auto findings = check(problem, plan.layout, programs, {});
  REQUIRE(to_text(findings.at(0)) == "wrong: forward rank 1: has other masks than rank 0");
}
