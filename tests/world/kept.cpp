// What a forward run leaves for its backward run: calls in flight at once, and what a backward run refuses.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Plan plan_of(int world_size, const std::string& strategy = "ring") {
  const AttentionProblem problem = problem_of("causal", 24 * world_size);
  return make_plan(problem, Topology::single_node(world_size), {"zigzag", strategy, true});
}

// Of one rank: a plan on a world, two calls with tensors and kept memory each, and scratch that they share.
struct Rank {
  Rank(World& world_, const Plan& plan_, const AttentionOptions& options = {})
      : world(world_),
        plan(plan_),
        attention(world, plan, options),
        a(plan, world.rank(), 3),
        b(plan, world.rank(), 4),
        kept_a(poisoned(attention.kept_bytes())),
        kept_b(poisoned(attention.kept_bytes())),
        scratch(poisoned(attention.workspace_bytes() - attention.kept_bytes())) {}

  void bind_a() { attention.bind(a.views(), span_of(scratch), span_of(kept_a)); }
  void bind_b() { attention.bind(b.views(), span_of(scratch), span_of(kept_b)); }
  void bind_b_on_kept_a() { attention.bind(b.views(), span_of(scratch), span_of(kept_a)); }
  bool right(const Tensors& tensors) {
    const Verification v = verify(world, plan, tensors.views(), true, VerifyMode::full);
    return v.wrong == 0 && v.out_rel_l2 < 1e-5 && v.dq_rel_l2 < 1e-5 && v.dk_rel_l2 < 1e-5 && v.dv_rel_l2 < 1e-5;
  }

  World& world;
  const Plan& plan;
  Attention attention;
  const Tensors a, b;
  const DeviceMemory kept_a, kept_b, scratch;
};

// What each rank's backward() says after `before`, which must not move the world out of step: a whole call follows.
std::vector<std::string> refusals(const Plan& plan, Agree agree, const std::function<void(Rank&)>& before) {
  std::vector<std::string> said(static_cast<std::size_t>(plan.topology.world_size));
  run_in_process(plan.topology.world_size, {.timeout_seconds = 20}, [&](World& world) {
    Rank rank(world, plan, {.agree = agree});
    before(rank);
    try {
      rank.attention.backward();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::invalid) said[static_cast<std::size_t>(world.rank())] = error.what();
    }
    rank.bind_b();
    rank.attention.forward();
    rank.attention.backward();
    if (!rank.right(rank.b)) fail(ErrorCode::bug, "a call after a refusal is wrong");
  });
  return said;
}

// Whether `call` finds its results right, on every rank.
bool right_everywhere(const Plan& plan, const AttentionOptions& options, const std::function<bool(Rank&)>& call) {
  std::vector<char> right(static_cast<std::size_t>(plan.topology.world_size), 0);
  run_in_process(plan.topology.world_size, {.timeout_seconds = 60}, [&](World& world) {
    Rank rank(world, plan, options);
    right[static_cast<std::size_t>(world.rank())] = call(rank);
  });
  return std::all_of(right.begin(), right.end(), [](char one) { return one != 0; });
}

constexpr const char* kRefused = "there is no forward run for this backward run";

}  // namespace

TEST_CASE("calls in flight at once, each with kept memory of its own, have each their own gradients") {
  for (const std::string& strategy : strategy_names()) {
    for (int world_size : {1, 4, 6}) {
      for (int bindings : {1, 8}) {
        INFO(strategy << " P=" << world_size << " bindings " << bindings);
        const Plan plan = plan_of(world_size, strategy);
        REQUIRE(right_everywhere(plan, {.bindings = bindings}, [&](Rank& rank) {
          rank.bind_a();
          rank.attention.forward();
          rank.bind_b();
          rank.attention.forward();
          rank.bind_a();
          rank.attention.backward();
          rank.bind_b();
          rank.attention.backward();
          return rank.right(rank.a) && rank.right(rank.b);
        }));
      }
    }
  }
}

TEST_CASE("a backward run whose forward run is not the one that is kept is refused on all ranks alike") {
  const std::vector<std::pair<const char*, std::function<void(Rank&)>>> cases = {
      {"before any forward", [](Rank& r) { r.bind_a(); }},
      {"bind, then backward",
       [](Rank& r) {
         r.bind_a();
         r.attention.forward();
         r.attention.backward();
         r.bind_b();
       }},
      {"forward(a) forward(b) backward(a) on one kept memory",
       [](Rank& r) {
         r.bind_a();
         r.attention.forward();
         r.bind_b_on_kept_a();
         r.attention.forward();
         r.bind_a();
       }},
      {"another forward run on the same output",
       [](Rank& r) {
         r.bind_a();
         r.attention.forward();
         AttentionTensors mixed = r.b.views();
         mixed.out = r.a.views().out;
         r.attention.bind(mixed, span_of(r.scratch), span_of(r.kept_b));
         r.attention.forward();
         r.bind_a();
       }},
      {"another attention on the same workspace",
       [](Rank& r) {
         const DeviceMemory workspace = poisoned(r.attention.workspace_bytes());
         Attention other(r.world, r.plan);
         r.attention.bind(r.a.views(), span_of(workspace));
         other.bind(r.b.views(), span_of(workspace));
         r.attention.forward();
         other.forward();
         r.attention.bind(r.a.views(), span_of(workspace));
       }},
      {"a forward run on one rank's tensors of another call",
       [](Rank& r) {
         r.bind_a();
         r.attention.forward();
         r.attention.backward();
         r.bind_b();
         r.attention.forward();
         r.bind_a();
         r.attention.forward();
         AttentionTensors mixed = r.a.views();
         mixed.query = r.b.views().query;
         r.attention.bind(mixed, span_of(r.scratch), span_of(r.kept_a));
       }},
  };
  const Plan plan = plan_of(4);
  for (const auto& [name, before] : cases) {
    for (Agree agree : {Agree::first, Agree::always}) {
      INFO(name << (agree == Agree::first ? ", first" : ", always"));
      for (const std::string& said : refusals(plan, agree, before)) REQUIRE_THAT(said, ContainsSubstring(kRefused));
    }
  }
}

TEST_CASE("where ranks agree on every call, the objection of one is that of all") {
  const auto before = [](Rank& r) {
    r.bind_a();
    r.attention.forward();
    if (r.world.rank() == 2) r.bind_b();
  };
  for (const std::string& said : refusals(plan_of(4), Agree::always, before)) {
    REQUIRE_THAT(said, ContainsSubstring(std::string("rank 2: ") + kRefused));
  }
}

TEST_CASE("kept memory that the way back uses up serves one backward run, and other kept memory any number") {
  for (int world_size : {3, 6}) {
    const Plan plan = plan_of(world_size);
    std::vector<int> refused(static_cast<std::size_t>(world_size), 0);
    REQUIRE(right_everywhere(plan, {.agree = Agree::always}, [&](Rank& rank) {
      rank.bind_a();
      rank.attention.forward();
      rank.attention.backward();
      try {
        rank.attention.backward();
      } catch (const Error& error) {
        refused[static_cast<std::size_t>(rank.world.rank())] = error.code() == ErrorCode::invalid ? 1 : 2;
      }
      return rank.right(rank.a);
    }));
    for (int one : refused) REQUIRE(one == (world_size == 6 ? 1 : 0));
  }
}

TEST_CASE("a plan that keeps nothing goes back to any call whose results are still there") {
  const Plan plan = plan_of(3, "gather");
  REQUIRE(right_everywhere(plan, {}, [&](Rank& rank) {
    if (rank.attention.kept_bytes() != 0) fail(ErrorCode::bug, "a gather keeps ", rank.attention.kept_bytes());
    const DeviceMemory workspace = poisoned(rank.attention.workspace_bytes());
    for (const Tensors* tensors : {&rank.a, &rank.b}) {
      rank.attention.bind(tensors->views(), span_of(workspace));
      rank.attention.forward();
    }
    for (const Tensors* tensors : {&rank.a, &rank.b}) {
      rank.attention.bind(tensors->views(), span_of(workspace));
      rank.attention.backward();
    }
    return rank.right(rank.a) && rank.right(rank.b);
  }));
}

TEST_CASE("a forward run that is done again is gone back from") {
  const Plan plan = plan_of(4);
  REQUIRE(right_everywhere(plan, {}, [&](Rank& rank) {
    rank.bind_a();
    rank.attention.forward();
    rank.bind_b_on_kept_a();
    rank.attention.forward();
    rank.attention.backward();
    rank.bind_a();
    rank.attention.forward();
    rank.attention.backward();
    return rank.right(rank.a) && rank.right(rank.b);
  }));
}

TEST_CASE("what was copied elsewhere is gone back from on the caller's word") {
  const Plan plan = plan_of(4);
  REQUIRE(right_everywhere(plan, {}, [&](Rank& rank) {
    rank.bind_a();
    rank.attention.forward();
    const DeviceMemory moved = poisoned(rank.attention.kept_bytes());
    std::memcpy(moved.data(), rank.kept_a.data(), moved.size());
    rank.bind_b_on_kept_a();
    rank.attention.forward();
    rank.attention.bind(rank.a.views(), span_of(rank.scratch), span_of(moved));
    rank.attention.assume_forward();
    rank.attention.backward();
    return rank.right(rank.a);
  }));
}
