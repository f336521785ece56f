// Ranks that are not about to run the same thing fail together, before the first transfer, and say in what they differ.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Plan plan_of(std::int64_t seq_len, int world_size, const char* mask = "causal") {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.head_dim = 8;
  problem.mask = Mask::parse(mask, seq_len);
  return make_plan(problem, Topology::single_node(world_size), {"zigzag", "ring"});
}

// The errors that each rank's body threw.
std::vector<std::string> errors(int world_size, const std::function<void(World&)>& body) {
  std::vector<std::string> messages(static_cast<std::size_t>(world_size));
  run_in_process(world_size, {.timeout_seconds = 20}, [&](World& world) {
    try {
      body(world);
    } catch (const Error& e) {
      messages[static_cast<std::size_t>(world.rank())] = e.what();
    }
  });
  return messages;
}

}  // namespace

TEST_CASE("ranks with different problems all fail, and name the rank and the field") {
  const auto messages =
      errors(3, [](World& world) { Attention attention(world, plan_of(world.rank() == 2 ? 48 : 64, 3), {}); });
  for (const std::string& m : messages) {
    REQUIRE_THAT(m, ContainsSubstring("rank 2 has seq_len=48 where rank 0 has seq_len=64"));
  }
}

TEST_CASE("a rank that cannot take the plan fails all, by name") {
  const auto messages = errors(3, [](World& world) { Attention attention(world, plan_of(64, 2), {}); });
  for (const std::string& m : messages) REQUIRE_THAT(m, ContainsSubstring("the plan is for 2 ranks, the world has 3"));
}

TEST_CASE("a rank that is a call ahead is found out") {
  const auto messages = errors(2, [](World& world) {
    const Plan plan = plan_of(64, 2);
    const std::int64_t tokens = plan.layout.tokens(world.rank());
    const auto tensor = [&](std::int64_t width) { return OwnedTensor(Dtype::fp32, 1, tokens, 1, width, 0); };
    const OwnedTensor q = tensor(64), k = tensor(64), v = tensor(64), out = tensor(64), lse = tensor(1);
    Attention attention(world, plan, {});
    std::vector<std::byte> memory(attention.workspace_bytes() + 64);
    void* start = memory.data();
    std::size_t space = memory.size();
    std::align(64, 1, start, space);
    const auto narrow = [](TensorView view) {
      if (view.width > 1) view.width = 8;
      return view;
    };
    attention.bind(
        {narrow(q.view()), narrow(k.view()), narrow(v.view()), narrow(out.view()), lse.view(), {}, {}, {}, {}},
        {static_cast<std::byte*>(start), space});
    if (world.rank() == 1) {
      agree_no_error(world, nullptr);  // what rank 0 takes for rank 1's call
    } else {
      attention.forward();
    }
  });
  REQUIRE_THAT(messages[0], ContainsSubstring("rank 1 is not at a run but elsewhere"));
}

TEST_CASE("tensors that are not the shard's are refused, with both shapes") {
  const auto messages = errors(1, [](World& world) {
    Attention attention(world, plan_of(64, 1), {});
    std::vector<std::byte> memory(attention.workspace_bytes() + 64);
    void* start = memory.data();
    std::size_t space = memory.size();
    std::align(64, 1, start, space);
    const OwnedTensor q(Dtype::fp32, 1, 63, 1, 8, 0);
    attention.bind({q.view(), q.view(), q.view(), q.view(), q.view(), {}, {}, {}, {}},
                   {static_cast<std::byte*>(start), space});
  });
  REQUIRE_THAT(messages[0], ContainsSubstring("query is [1, 63, 1, 8]; this rank's shard is [1, 64, 1, 8]"));
}
