// Memory: a run stays inside its workspace, and what a call allocates does not depend on how much it runs.
#include <algorithm>
#include <vector>

#include "link/allocations.hpp"
#include "support/catch.hpp"
#include "support/strategies.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

Plan plan_of(std::int64_t tokens_a_rank, int world_size, const std::string& strategy = "ring",
             const char* mask = "causal") {
  AttentionProblem problem;
  problem.seq_len = tokens_a_rank * world_size;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 32;
  problem.dtype = Dtype::bf16;
  problem.mask = Mask::parse(mask, problem.seq_len);
  return make_plan(problem, Topology::single_node(world_size), {"zigzag", strategy, true});
}

std::size_t workspace(const Plan& plan, int rank_asked) {
  std::size_t bytes = 0;
  run_in_process(plan.topology.world_size, {}, [&](World& world) {
    const Attention attention(world, plan);
    if (world.rank() == rank_asked) bytes = attention.workspace_bytes();
  });
  return bytes;
}

}  // namespace

TEST_CASE("a run stays inside workspace_bytes, and a call allocates no more than the records of its agreement") {
  for (const std::string& strategy : strategy_names()) {
    const Plan plan = plan_of(96, 3, strategy);
    std::vector<long> allocated(3, -1);
    std::vector<int> overrun(3, 0);
    run_in_process(3, {.timeout_seconds = 60}, [&](World& world) {
      const auto rank = static_cast<std::size_t>(world.rank());
      const Tensors tensors(plan, world.rank());
      Attention attention(world, plan, {.threads = 2});
      const std::size_t bytes = attention.workspace_bytes();
      constexpr std::size_t kGuard = 4096;
      constexpr std::byte kPattern{0xa5};
      std::vector<std::byte> memory(bytes + 2 * kGuard + 64, kPattern);
      auto* const aligned_start =
          reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + kGuard + 63) / 64 * 64);
      attention.bind(tensors.views(), {aligned_start, bytes});
      // Agreeing on the call is not yet running; it allocates for its small records, the same whatever the plan.
      const auto meet = [&] {
        const UncountedAllocations uncounted;
        world.barrier();
      };
      attention.forward();
      attention.backward();
      meet();
      const long before = allocations();
      meet();
      attention.forward();
      meet();
      allocated[rank] = allocations() - before;
      attention.backward();
      overrun[rank] =
          static_cast<int>(std::count_if(memory.data(), aligned_start, [&](std::byte b) { return b != kPattern; }) +
                           std::count_if(aligned_start + bytes, memory.data() + memory.size(),
                                         [&](std::byte b) { return b != kPattern; }));
      // What the buffers and the kernels need is all of it, but for rounding each tensor up to a cache line.
      const ProgramCost cost_of_backward = cost(attention.program(Pass::backward), plan.problem);
      const auto buffers = static_cast<std::size_t>(cost_of_backward.workspace_bytes + cost_of_backward.kept_bytes);
      if (bytes < buffers) fail(ErrorCode::bug, "workspace of ", bytes, " for buffers of ", buffers);
    });
    for (std::size_t rank = 0; rank < 3; ++rank) {
      INFO(strategy << " rank " << rank);
      REQUIRE(overrun[rank] == 0);
      // The agreement's records: a few small vectors for each of three ranks.
      REQUIRE(allocated[rank] <= 3 * 12);
    }
  }
}

TEST_CASE("a run of many steps allocates no more than a run of few") {
  const auto allocated = [](int world_size, const char* mask) {
    const Plan plan = plan_of(32, world_size, "ring", mask);
    long count = 0;
    run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
      const Tensors tensors(plan, world.rank());
      Attention attention(world, plan);
      std::vector<std::byte> memory(attention.workspace_bytes() + 64);
      void* start = memory.data();
      std::size_t space = memory.size();
      std::align(64, 1, start, space);
      attention.bind(tensors.views(), {static_cast<std::byte*>(start), space});
      const auto meet = [&] {
        const UncountedAllocations uncounted;
        world.barrier();
      };
      attention.forward();
      meet();
      const long before = allocations();
      meet();
      attention.forward();
      meet();
      if (world.rank() == 0) count = allocations() - before;
      meet();
    });
    return count;
  };
  // Eight ranks either way, so the same agreement: 1 step that attends, and 8.
  REQUIRE(allocated(8, "full") == allocated(8, "documents:32,32,32,32,32,32,32,32"));
}

TEST_CASE("workspace grows with the tokens a rank owns, not with the sequence") {
  REQUIRE(workspace(plan_of(64, 4), 1) == workspace(plan_of(64, 16), 1));
  REQUIRE(workspace(plan_of(128, 4), 1) < 2 * workspace(plan_of(64, 4), 1) + 4096);
  REQUIRE(workspace(plan_of(128, 4), 1) > workspace(plan_of(64, 4), 1));
}
