// Whole schedules on a device: virtual ranks that share one GPU, against the float64 reference on the host.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr std::int64_t kSeqLen = 389;

AttentionOptions on_device() {
  AttentionOptions options;
  options.device = {DeviceKind::cuda, 0};
  return options;
}

AttentionProblem two_sequences(const std::string& mask, Dtype dtype, int head_dim = 64) {
  AttentionProblem problem = problem_of(mask, kSeqLen, {4, 2, head_dim}, dtype);
  problem.batch = 2;
  return problem;
}

void require_right(const Verification& v, Dtype dtype) {
  const double limit = dtype == Dtype::fp32 ? 1e-5 : dtype == Dtype::bf16 ? 1.0 / 256 : 1.0 / 2048;
  REQUIRE(v.worst == "");
  REQUIRE(v.wrong == 0);
  REQUIRE(v.out_rel_l2 < limit);
  REQUIRE(v.lse_max_abs < 1e-4);
  REQUIRE(v.dq_rel_l2 < limit);
  REQUIRE(v.dk_rel_l2 < limit);
  REQUIRE(v.dv_rel_l2 < limit);
}

}  // namespace

TEST_CASE("virtual ranks on one device match float64 for every mask, layout and strategy") {
  const std::vector<std::string> masks = {"full", "causal", "causal+window:57+sinks:5",
                                          "causal+window:40+sinks:2+documents:61,0,178,150"};
  for (const std::string& mask : masks) {
    for (const std::string& strategy : strategy_names()) {
      for (const char* layout : {"contiguous", "zigzag", "striped:8"}) {
        for (int world_size : {1, 2, 3, 8}) {
          INFO(mask << " " << strategy << " " << layout << " P=" << world_size);
          require_right(run_sharded(two_sequences(mask, Dtype::bf16), {layout, strategy, true}, world_size, on_device())
                            .verification,
                        Dtype::bf16);
        }
      }
    }
  }
}

// Whose attends begin and finish the gradients of keys, where they are first or last on them; in turn and in any order.
TEST_CASE("virtual ranks on one device match float64 with portable kernels") {
  AttentionOptions portable = on_device();
  portable.portable_kernels = true;
  const std::vector<std::string> masks = {"full", "causal", "causal+window:57+sinks:5",
                                          "causal+window:40+sinks:2+documents:61,0,178,150"};
  for (const std::string& mask : masks) {
    for (const std::string& strategy : strategy_names()) {
      for (const char* layout : {"contiguous", "striped:8"}) {
        for (int world_size : {1, 2, 5}) {
          portable.deterministic = !portable.deterministic;
          INFO(mask << " " << strategy << " " << layout << " P=" << world_size);
          const std::int64_t padding = world_size == 2 ? 8 : 0;
          require_right(
              run_sharded(two_sequences(mask, Dtype::fp16), {layout, strategy, true}, world_size, portable, padding, 2)
                  .verification,
              Dtype::fp16);
        }
      }
    }
  }
}

TEST_CASE("every storage type and head_dim runs on the device") {
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (int head_dim : {32, 72, 128, 256}) {
      INFO(to_string(dtype) << " head_dim " << head_dim);
      require_right(
          run_sharded(two_sequences("causal", dtype, head_dim), {"zigzag", "ring", true}, 4, on_device()).verification,
          dtype);
    }
  }
}

TEST_CASE("rows of the caller's tensors may lie apart") {
  require_right(
      run_sharded(two_sequences("causal", Dtype::bf16), {"zigzag", "ring", true}, 3, on_device(), 8).verification,
      Dtype::bf16);
}

TEST_CASE("a ring that takes blocks together matches float64, and gives the same bits every run") {
  for (const std::string mask : {"full", "causal", "causal+window:57+sinks:5"}) {
    for (const char* layout : {"contiguous", "zigzag"}) {
      for (int world_size : {3, 4, 8}) {
        for (std::int64_t keys : {200, 1000}) {
          INFO(mask << " " << layout << " P=" << world_size << " keys=" << keys);
          const PlanOptions plan{layout, ring_with(keys, keys), true};
          const Sharded once = run_sharded(two_sequences(mask, Dtype::bf16), plan, world_size, on_device());
          require_right(once.verification, Dtype::bf16);
          REQUIRE(run_sharded(two_sequences(mask, Dtype::bf16), plan, world_size, on_device(), 0, 2).bytes ==
                  once.bytes);
        }
      }
    }
  }
}

TEST_CASE("the same schedule gives the same bits every run, and again on the same tensors") {
  const AttentionProblem problem = two_sequences("causal", Dtype::bf16, 128);
  const Sharded once = run_sharded(problem, {"zigzag", "ring", true}, 4, on_device());
  require_right(once.verification, Dtype::bf16);
  for (int runs : {1, 3}) {
    const Sharded again = run_sharded(problem, {"zigzag", "ring", true}, 4, on_device(), 0, runs);
    REQUIRE(again.bytes == once.bytes);
  }
}

TEST_CASE("a margin of multiprocessors changes no bit") {
  AttentionOptions with_margin = on_device();
  with_margin.sm_margin = cuda_devices().at(0).multiprocessors / 3;
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (int world_size : {1, 4}) {
      INFO(to_string(dtype) << " P=" << world_size);
      const AttentionProblem problem = two_sequences("causal", dtype, 128);
      const Sharded whole = run_sharded(problem, {"zigzag", "ring", true}, world_size, on_device());
      const Sharded part = run_sharded(problem, {"zigzag", "ring", true}, world_size, with_margin, 0, 2);
      require_right(part.verification, dtype);
      REQUIRE(part.bytes == whole.bytes);
    }
  }
}

TEST_CASE("portable kernels run where they are asked for") {
  AttentionOptions portable = on_device();
  portable.portable_kernels = true;
  const PlanOptions forward = {"zigzag", "ring", false};
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    const AttentionProblem problem = two_sequences("causal", dtype, 128);
    require_right(run_sharded(problem, {"zigzag", "ring", true}, 3, portable).verification, dtype);
    run_in_process(1, {.timeout_seconds = 60}, [&](World& world) {
      const Plan plan = make_plan(problem, world.topology(), forward);
      const bool exact = dtype == Dtype::fp32;
      const std::string best = exact ? "fp32" : cuda_kernels(cuda_devices().at(0));
      REQUIRE(Attention(world, plan, on_device()).kernels(Pass::forward) == best);
      REQUIRE(Attention(world, plan, portable).kernels(Pass::forward) == (exact ? "fp32" : "portable"));
      REQUIRE(Attention(world, plan, portable).kernels(Pass::backward).empty());
    });
  }
}

TEST_CASE("a margin that leaves no multiprocessor is refused") {
  AttentionOptions options = on_device();
  const PlanOptions forward = {"zigzag", "ring", false};
  const int all = cuda_devices().at(0).multiprocessors;
  options.sm_margin = all;
  REQUIRE_THROWS_WITH(run_sharded(two_sequences("causal", Dtype::bf16), forward, 2, options),
                      ContainsSubstring(concat("leaves none of the ", all, " multiprocessors")));
  options.sm_margin = -1;
  REQUIRE_THROWS_WITH(run_sharded(two_sequences("causal", Dtype::bf16), forward, 1, options),
                      ContainsSubstring("margin of -1"));
  options.sm_margin = all - 1;
  REQUIRE(run_sharded(two_sequences("causal", Dtype::bf16), forward, 1, options).verification.wrong == 0);
}

TEST_CASE("what a device's kernels do not take is refused by name") {
  AttentionProblem odd = two_sequences("causal", Dtype::bf16, 68);
  REQUIRE_THROWS_WITH(run_sharded(odd, {"zigzag", "ring", false}, 2, on_device()), ContainsSubstring("head_dim"));
}
