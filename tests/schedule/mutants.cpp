// The checker checked: good programs are damaged in every way that comes to mind, and whatever changes the result must
// be found. Whether a mutant changes the result is decided by another, naive interpreter (token by token, in sequence),
// so that checker and judge share no code.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "orrery/check.hpp"
#include "schedule/naive.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

AttentionProblem problem_of(const char* mask) {
  AttentionProblem problem;
  problem.seq_len = 24;
  problem.heads = 2;
  problem.kv_heads = 2;
  problem.head_dim = 4;
  problem.mask = Mask::parse(mask, problem.seq_len);
  return problem;
}

using Programs = std::vector<RankProgram>;

// Strategies and their keys_per_step: the ring with a block a step, and with blocks taken together.
constexpr std::pair<const char*, std::int64_t> kStrategies[] = {{"ring", 0}, {"ring", 24}, {"gather", 0}};

Slice* any_slice(Step& step, std::mt19937& random) {
  std::vector<Slice*> slices;
  std::visit(
      [&](auto& s) {
        using S = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<S, Exchange>) {
          for (Transfer& t : s.sends) slices.push_back(&t.slice);
          for (Transfer& t : s.receives) slices.push_back(&t.slice);
        } else if constexpr (std::is_same_v<S, Attend>) {
          slices = {&s.query, &s.key_value, &s.state};
        } else if constexpr (std::is_same_v<S, AttendBackward>) {
          slices = {&s.query, &s.key_value, &s.grad_output, &s.output, &s.delta, &s.grad_query, &s.grad_key_value};
        } else if constexpr (std::is_same_v<S, Clear>) {
          slices = {&s.into};
        }
      },
      step);
  return slices.empty() ? nullptr : slices[random() % slices.size()];
}

// Damages one step of one rank; false when this kind of damage does not apply there.
bool mutate(Programs& programs, std::mt19937& random) {
  RankProgram& program = programs[random() % programs.size()];
  auto& steps = program.steps;
  const std::size_t i = random() % steps.size(), j = random() % steps.size();
  const auto at = [&](std::size_t index) { return steps.begin() + static_cast<std::ptrdiff_t>(index); };
  switch (random() % 7) {
    case 0:
      steps.erase(at(i));
      return true;
    case 1:
      steps.insert(at(j), Step(steps[i]));
      return true;
    case 2:
      std::swap(steps[i], steps[j]);
      return i != j;
    case 3: {  // wrong peer
      auto* exchange = std::get_if<Exchange>(&steps[i]);
      if (exchange == nullptr) return false;
      auto& list = random() % 2 == 0 ? exchange->sends : exchange->receives;
      if (list.empty()) return false;
      int& peer = list[random() % list.size()].peer;
      peer = (peer + 1) % program.world_size;
      return peer != program.rank;
    }
    case 4: {  // wrong span
      auto* attend = std::get_if<Attend>(&steps[i]);
      auto* backward = std::get_if<AttendBackward>(&steps[i]);
      if (attend == nullptr && backward == nullptr) return false;
      auto& spans = attend ? (random() % 2 ? attend->query_spans : attend->key_spans)
                           : (random() % 2 ? backward->query_spans : backward->key_spans);
      Span& span = spans[random() % spans.size()];
      span.begin = std::max<std::int64_t>(0, span.begin + (random() % 2 ? 1 : -1));
      return span.last() < 24;
    }
    case 5: {  // wrong rows
      Slice* slice = any_slice(steps[i], random);
      if (slice == nullptr) return false;
      slice->token_begin += random() % 2 ? 1 : -1;
      return true;
    }
    default: {  // wrong buffer
      Slice* slice = any_slice(steps[i], random);
      if (slice == nullptr) return false;
      slice->buffer = static_cast<int>(random() % program.buffers.size());
      return true;
    }
  }
}

}  // namespace

TEST_CASE("no mutant that changes the result passes") {
  std::mt19937 random(20240607);
  std::map<bool, int> harmful_found, harmless_passed;
  int tried = 0;
  for (const auto& [strategy, keys_per_step] : kStrategies) {
    for (const char* layout_name : {"contiguous", "zigzag", "striped"}) {
      for (const char* mask : {"full", "causal", "causal+window:5", "causal+documents:7,17"}) {
        const AttentionProblem problem = problem_of(mask);
        const Plan plan = make_plan(problem, Topology::single_node(3),
                                    {layout_name, strategy, true, true, keys_per_step, keys_per_step});
        Programs forward, backward;
        for (int rank = 0; rank < 3; ++rank) {
          forward.push_back(plan.program(rank, Pass::forward));
          backward.push_back(plan.program(rank, Pass::backward));
        }
        REQUIRE(test::naive_is_right(problem, plan.layout, forward, backward));
        for (int n = 0; n < 150; ++n) {
          Programs mutant_forward = forward, mutant_backward = backward;
          if (!mutate(random() % 2 ? mutant_forward : mutant_backward, random)) continue;
          ++tried;
          const bool passed = check(problem, plan.layout, mutant_forward, mutant_backward, {.needless = false}).empty();
          const bool right = test::naive_is_right(problem, plan.layout, mutant_forward, mutant_backward);
          INFO(strategy << " " << layout_name << " " << mask << " mutant " << n);
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

TEST_CASE("every step of a proved program is needed: dropping any one is found") {
  for (const auto& [strategy, keys_per_step] : kStrategies) {
    for (const char* mask : {"full", "causal", "causal+window:5"}) {
      const AttentionProblem problem = problem_of(mask);
      const Plan plan =
          make_plan(problem, Topology::single_node(3), {"zigzag", strategy, true, true, keys_per_step, keys_per_step});
      Programs forward, backward;
      for (int rank = 0; rank < 3; ++rank) {
        forward.push_back(plan.program(rank, Pass::forward));
        backward.push_back(plan.program(rank, Pass::backward));
      }
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
  const AttentionProblem problem = problem_of("causal");
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
  const AttentionProblem problem = problem_of("causal");
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
