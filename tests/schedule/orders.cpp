// The checker runs each rank in program order; links and backends choose others (docs/schedule.md).
#include <algorithm>
#include <random>

#include "backend/coverage/concurrency.hpp"
#include "orrery/check.hpp"
#include "orrery/plan.hpp"
#include "schedule/builder.hpp"
#include "schedule/mutate.hpp"
#include "schedule/orders.hpp"
#include "schedule/programs_by_hand.hpp"
#include "support/catch.hpp"
#include "support/strategies.hpp"

using namespace orrery;

namespace {

// Every strategy, and the ring with blocks taken together.
std::vector<std::string> programmed() {
  std::vector<std::string> strategies = test::strategy_names();
  strategies.push_back(test::ring_with(24, 24));
  return strategies;
}

template <typename Visit>
void for_each_plan(const Visit& visit) {
  for (const std::string& strategy : programmed()) {
    for (const char* layout : {"contiguous", "zigzag"}) {
      for (const char* mask : {"full", "causal", "causal+window:5"}) {
        visit(make_plan(test::problem_to_damage(mask), Topology::single_node(3), {layout, strategy, true}));
      }
    }
  }
}

test::Programs programs_of(const Plan& plan, Pass pass) {
  test::Programs programs;
  for (int rank = 0; rank < plan.topology.world_size; ++rank) programs.push_back(plan.program(rank, pass));
  return programs;
}

bool ends(const test::Programs& programs, const Order& order) {
  return test::ends(programs, std::vector<Order>(programs.size(), order));
}

bool walks_to_its_end(const test::Programs& programs, const std::vector<Order>& orders) {
  struct AtOnce final : Walk::Client {
    Walk walk;
    const test::Programs& programs;
    AtOnce(const test::Programs& p, const std::vector<Order>& o) : walk(p, o, *this), programs(p) {}
    void begin(int rank, int step) override {
      const Step& s = programs[static_cast<std::size_t>(rank)].steps[static_cast<std::size_t>(step)];
      if (!std::holds_alternative<Exchange>(s)) walk.done(rank, step);
    }
    void meet(const Walk::Message& message) override { walk.done(message); }
  };
  AtOnce client(programs, orders);
  client.walk.advance();
  return client.walk.complete();
}

bool deadlocks(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(), [](const Finding& f) { return f.fault == Fault::deadlock; });
}

// Of each step, those that are complete before it begins, step by step and without cleverness.
std::vector<std::vector<bool>> complete_before(const RankProgram& program, const Dependencies& dependencies) {
  std::vector<std::vector<bool>> before;
  int last_computed = -1;
  for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
    std::vector<bool>& mine = before.emplace_back(program.steps.size());
    const auto behind = [&](int earlier) {
      mine[static_cast<std::size_t>(earlier)] = true;
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = mine[i] || before[static_cast<std::size_t>(earlier)][i];
    };
    for (int earlier : dependencies.of(step)) behind(earlier);
    if (std::holds_alternative<Exchange>(program.steps[static_cast<std::size_t>(step)])) continue;
    if (last_computed >= 0) behind(last_computed);
    last_computed = step;
  }
  return before;
}

bool conflict(const Step& a, const Step& b) {
  bool found = false;
  for_each_access(a, [&](const Access& x) {
    for_each_access(b, [&](const Access& y) {
      const bool both_read = x.mode == AccessMode::read && y.mode == AccessMode::read;
      found = found || (!both_read && overlap(x.slice, y.slice));
    });
  });
  return found;
}

std::size_t naive_hazards(const RankProgram& program, const Dependencies& dependencies) {
  const auto before = complete_before(program, dependencies);
  std::size_t count = 0;
  for (std::size_t b = 0; b < program.steps.size(); ++b) {
    for (std::size_t a = 0; a < b; ++a) count += !before[b][a] && conflict(program.steps[a], program.steps[b]);
  }
  return count;
}

}  // namespace

TEST_CASE("a rank that computes before it sends what the other waits for, on another lane, is found as deadlock") {
  const AttentionProblem problem = test::problem_to_damage("full");
  const Layout layout = Layout::make("contiguous", problem.mask, 2);
  const test::Programs programs = test::crossed_lanes(problem, layout);
  REQUIRE(ends(programs, test::kOrders[0]));        // lanes free
  REQUIRE_FALSE(ends(programs, test::kOrders[3]));  // the host backend
  const auto findings = check(problem, layout, programs, {});
  REQUIRE(findings.size() == 2);
  REQUIRE(to_text(findings[0]) ==
          "deadlock: forward rank 0 step 0: exchange lane 0 receive visiting[0:12] from 1: waits for ever, for rank 1 "
          "(at step 0) to send on lane 0");
  REQUIRE(findings[1].fault == Fault::deadlock);
}

TEST_CASE("each order holds back what it says") {
  // Rank 0 receives first, and sends later what rank 1 needs before it sends.
  const auto programs_of = [](int lane_of_sending, bool passes_on) {
    test::Programs programs;
    for (int rank : {0, 1}) {
      ProgramBuilder program(Pass::forward, rank, 2, 64);
      const Slice own = program.all(program.buffer("own", BufferKind::key_value, BufferRole::input, Dtype::fp32, 4, 1));
      const Slice got =
          program.all(program.buffer("got", BufferKind::key_value, BufferRole::workspace, Dtype::fp32, 4, 1));
      if (rank == 0) {
        program.add(Exchange{{}, {{got, 1}}, 0});
        if (passes_on) program.add(Exchange{{{got, 1}}, {}, 0});
        program.add(Exchange{{{own, 1}}, {}, lane_of_sending});
      } else {
        const Slice more =
            program.all(program.buffer("more", BufferKind::key_value, BufferRole::workspace, Dtype::fp32, 4, 1));
        program.add(Exchange{{}, {{got, 0}}, lane_of_sending});
        program.add(Exchange{{{got, 0}}, {}, 0});
        if (passes_on) program.add(Exchange{{}, {{more, 0}}, 0});
      }
      programs.push_back(program.program());
    }
    return programs;
  };
  const auto stuck = [](const test::Programs& programs) {
    std::string names;
    for (const Order& order : test::kOrders) {
      REQUIRE(walks_to_its_end(programs, {order}) == ends(programs, order));
      if (!ends(programs, order)) names += std::string(names.empty() ? "" : "; ") + order.name;
    }
    return names;
  };
  REQUIRE(stuck(programs_of(0, false)) == "NCCL, connected; NCCL, connecting; program order");
  REQUIRE(stuck(programs_of(1, false)) == "NCCL, connecting; program order");
  REQUIRE(stuck(programs_of(1, true)) == "NCCL, connecting; staged; program order");
}

TEST_CASE("what comes to its end in program order does so in every order that links choose, and in any mixture") {
  std::mt19937 random(14);
  int end = 0, stuck_somewhere = 0;
  for_each_plan([&](const Plan& plan) {
    for (Pass pass : {Pass::forward, Pass::backward}) {
      const test::Programs good = programs_of(plan, pass);
      for (int n = 0; n < 40; ++n) {
        test::Programs programs = good;
        if (n > 0 && !test::mutate(programs, random)) continue;
        // A backward pass alone lacks what is kept, which is another fault.
        const auto findings = check(plan.problem, plan.layout, programs, {}, {.needless = false, .at_most = 1000});
        const bool invalid = std::any_of(findings.begin(), findings.end(), [](const Finding& f) {
          return f.fault == Fault::wrong && f.message.find("[rank") != std::string::npos;
        });
        if (invalid) continue;
        std::vector<bool> ended;
        for (const Order& order : test::kOrders) ended.push_back(ends(programs, order));
        std::vector<Order> mixed;
        for (std::size_t rank = 0; rank < programs.size(); ++rank) mixed.push_back(test::kOrders[random() % 6]);
        ended.push_back(test::ends(programs, mixed));
        const bool all = std::find(ended.begin(), ended.end(), false) == ended.end();
        // The walk of the library finds the same of each order.
        for (std::size_t i = 0; i < std::size(test::kOrders); ++i) {
          INFO(test::kOrders[i].name);
          REQUIRE(walks_to_its_end(programs, {test::kOrders[i]}) == ended[i]);
        }
        REQUIRE(walks_to_its_end(programs, mixed) == ended.back());
        REQUIRE(walks_to_its_end(programs, {kProgramOrder}) == !deadlocks(findings));
        INFO(plan.strategy << " " << plan.layout.text() << " " << plan.problem.mask.text() << " mutant " << n);
        REQUIRE((n > 0 || !deadlocks(findings)));
        REQUIRE((deadlocks(findings) || all));
        ++(deadlocks(findings) ? stuck_somewhere : end);
      }
    }
  });
  REQUIRE(end > 100);
  REQUIRE(stuck_somewhere > 100);
}

TEST_CASE("dependencies keep apart what must not overlap in time, and whichever is missing is found as a hazard") {
  int needed = 0, implied = 0;
  for_each_plan([&](const Plan& plan) {
    for (Pass pass : {Pass::forward, Pass::backward}) {
      const RankProgram& program = plan.program(1, pass);
      const Dependencies right(program);
      REQUIRE(coverage::hazards(program, right).empty());
      std::vector<std::vector<int>> lists;
      for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
        lists.emplace_back(right.of(step).begin(), right.of(step).end());
      }
      for (std::size_t step = 0; step < lists.size(); ++step) {
        for (std::size_t i = 0; i < lists[step].size(); ++i) {
          auto damaged = lists;
          damaged[step].erase(damaged[step].begin() + static_cast<std::ptrdiff_t>(i));
          const Dependencies wrong(damaged);
          INFO(to_text(program) << "step " << step << " does not wait for " << lists[step][i]);
          const std::size_t found = coverage::hazards(program, wrong).size();
          REQUIRE(found == naive_hazards(program, wrong));
          ++(found > 0 ? needed : implied);
        }
      }
    }
  });
  REQUIRE(needed > 100);
  REQUIRE(implied > 100);  // of two computing steps, mostly
}
