// Programs written by hand are proved like any other, and their faults are found.
#include "orrery/check.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

AttentionProblem problem_of(std::int64_t seq_len, const char* mask) {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = 2;
  problem.kv_heads = 1;
  problem.head_dim = 4;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

bool found(const std::vector<Finding>& findings, Fault fault) {
  for (const Finding& f : findings) {
    if (f.fault == fault) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("queries that move and partial states that are merged at home are proved") {
  for (const char* mask : {"full", "causal", "causal+window:7", "documents:9,20,8"}) {
    for (const char* layout_name : {"contiguous", "zigzag", "striped"}) {
      for (int world : {1, 2, 3, 5}) {
        const AttentionProblem problem = problem_of(37, mask);
        const Layout layout = Layout::make(layout_name, problem.mask, world);
        INFO(mask << " " << layout_name << " P=" << world);
        REQUIRE(check(problem, layout, test::pass_query(problem, layout), {}).empty());
      }
    }
  }
}

TEST_CASE("a partial state that is merged twice, or by the wrong rank, is found") {
  const AttentionProblem problem = problem_of(24, "full");
  const Layout layout = Layout::make("contiguous", problem.mask, 3);
  auto programs = test::pass_query(problem, layout);
  auto& steps = programs[1].steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (!std::holds_alternative<Merge>(steps[i])) continue;
    steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(i), steps[i]);
    break;
  }
  REQUIRE(found(check(problem, layout, programs, {}), Fault::repeated));

  programs = test::pass_query(problem, layout);
  for (Step& step : programs[0].steps) {
    if (auto* exchange = std::get_if<Exchange>(&step); exchange != nullptr && exchange->receives.size() == 2) {
      std::swap(exchange->receives[0].slice, exchange->receives[1].slice);
    }
  }
  REQUIRE_FALSE(check(problem, layout, programs, {}).empty());
}

TEST_CASE("an ordered scan over the ranks is proved, forward and reversed") {
  const AttentionProblem problem = problem_of(8, "causal");
  for (bool reversed : {false, true}) {
    for (int world : {1, 2, 3, 8}) {
      const Layout layout = Layout::make("contiguous", problem.mask, world);
      REQUIRE(check(problem, layout, test::scan(world, 2, reversed), {}).empty());
    }
  }
}

TEST_CASE("a scan composed out of order is found") {
  const AttentionProblem problem = problem_of(8, "causal");
  const Layout layout = Layout::make("contiguous", problem.mask, 3);
  auto programs = test::scan(3, 2, false);
  for (Step& step : programs[2].steps) {
    if (auto* compose = std::get_if<Compose>(&step)) std::swap(compose->into, compose->earlier);
  }
  REQUIRE(found(check(problem, layout, programs, {}), Fault::wrong));

  programs = test::scan(3, 2, false);
  std::erase_if(programs[1].steps, [](const Step& s) { return std::holds_alternative<Compose>(s); });
  REQUIRE_FALSE(check(problem, layout, programs, {}).empty());
}
