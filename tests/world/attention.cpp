// Whole schedules with numbers: every strategy, layout and mask on in-process ranks, against the float64 reference.
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"
#include "world/sharded.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

const std::vector<std::string> kMasks = {
    "full",
    "causal",
    "window:17,9",
    "causal+window:23+sinks:5",
    "causal+prefix:31",
    "causal+documents:61,0,50,82",
    "causal+window:20+sinks:2+documents:61,0,50,82",
};
constexpr std::int64_t kSeqLen = 193;

AttentionProblem two_sequences(const std::string& mask, Dtype dtype = Dtype::fp32) {
  AttentionProblem problem = problem_of(mask, kSeqLen, {}, dtype);
  problem.batch = 2;
  return problem;
}

void require_right(const Verification& v) {
  REQUIRE(v.wrong == 0);
  REQUIRE(v.worst == "");
  REQUIRE(v.out_rel_l2 < 1e-5);
  REQUIRE(v.lse_max_abs < 1e-5);
  REQUIRE(v.dq_rel_l2 < 1e-5);
  REQUIRE(v.dk_rel_l2 < 1e-5);
  REQUIRE(v.dv_rel_l2 < 1e-5);
}

}  // namespace

TEST_CASE("forward and backward match float64 for every strategy, layout, mask and world size") {
  Cases cases;
  for (const std::string& mask : kMasks) {
    for (const std::string& strategy : strategy_names()) {
      for (const char* layout : {"contiguous", "zigzag", "striped", "striped:8"}) {
        for (int world_size : {1, 2, 3, 4, 7}) {
          if (!cases.runs_next()) continue;
          INFO(mask << " " << strategy << " " << layout << " P=" << world_size);
          const Sharded run = run_sharded(two_sequences(mask), {layout, strategy, true}, world_size);
          require_right(run.verification);
        }
      }
    }
  }
}

TEST_CASE("a ring that takes blocks together matches float64") {
  Cases cases;
  for (const std::string& mask : kMasks) {
    for (const char* layout : {"contiguous", "zigzag"}) {
      for (int world_size : {3, 4, 7}) {
        for (const auto& [forward, backward] :
             {std::pair(130, 130), std::pair(1000, 1000), std::pair(1000, 0), std::pair(0, 1000)}) {
          if (!cases.runs_next()) continue;
          INFO(mask << " " << layout << " P=" << world_size << " keys a step " << forward << "," << backward);
          const Sharded run =
              run_sharded(two_sequences(mask), {layout, ring_with(forward, backward), true}, world_size, {}, 0, 2);
          require_right(run.verification);
        }
      }
    }
  }
}

TEST_CASE("a single KV head is taken together by rows") {
  AttentionProblem problem = two_sequences("causal");
  problem.kv_heads = 1;
  require_right(run_sharded(problem, {"zigzag", ring_with(1000, 1000), true}, 4).verification);
}

TEST_CASE("a negative scale is verified as a positive one is") {
  for (const char* mask : {"causal", "causal+documents:61,1,50,81"}) {
    AttentionProblem problem = two_sequences(mask);
    problem.scale = -0.2;
    require_right(run_sharded(problem, {"zigzag", "ring", true}, 3).verification);
  }
}

TEST_CASE("16-bit inputs give results within rounding of float64") {
  Cases cases;
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    const double rounding = dtype == Dtype::bf16 ? 1.0 / 256 : 1.0 / 2048;
    for (int world_size : {3, 1, 4}) {
      if (!cases.runs_next()) continue;
      const Sharded run = run_sharded(two_sequences("causal", dtype), {"zigzag", "ring", true}, world_size);
      REQUIRE(run.verification.wrong == 0);
      REQUIRE(run.verification.out_rel_l2 < rounding);
      REQUIRE(run.verification.dq_rel_l2 < rounding);
      REQUIRE(run.verification.dk_rel_l2 < rounding);
      REQUIRE(run.verification.dv_rel_l2 < rounding);
    }
  }
}

TEST_CASE("the error does not grow with the number of ranks") {
  const auto error = [](int world_size) {
    return run_sharded(two_sequences("causal"), {"zigzag", "ring", true}, world_size).verification;
  };
  const Verification one = error(1);
  Cases cases;
  for (int world_size : {8, 2, 16, 64}) {
    if (!cases.runs_next()) continue;
    const Verification many = error(world_size);
    REQUIRE(many.wrong == 0);
    REQUIRE(many.out_rel_l2 < 1.5 * one.out_rel_l2 + 1e-7);
    REQUIRE(many.dq_rel_l2 < 1.5 * one.dq_rel_l2 + 1e-7);
    REQUIRE(many.dk_rel_l2 < 1.5 * one.dk_rel_l2 + 1e-7);
    REQUIRE(many.dv_rel_l2 < 1.5 * one.dv_rel_l2 + 1e-7);
  }
}

TEST_CASE("the same schedule gives the same bits every run") {
  for (const std::string& strategy : strategy_names()) {
    const PlanOptions options{"zigzag", strategy, true};
    const Sharded first = run_sharded(two_sequences("causal", Dtype::bf16), options, 3, {.threads = 2});
    const Sharded again = run_sharded(two_sequences("causal", Dtype::bf16), options, 3, {.threads = 1});
    REQUIRE(first.bytes == again.bytes);
  }
}

TEST_CASE("starting the backward ring from kept key-values changes no bit") {
  const Sharded kept = run_sharded(two_sequences("causal"), {"zigzag", "ring", true}, 4);
  const Sharded fresh = run_sharded(two_sequences("causal"), {"zigzag", "ring:keep=no", true}, 4);
  REQUIRE(kept.bytes == fresh.bytes);
}

TEST_CASE("ranks without tokens take part") {
  for (std::int64_t seq_len : {0, 1, 3, 5}) {
    AttentionProblem problem = two_sequences("causal");
    problem.seq_len = seq_len;
    problem.mask = Mask::causal(seq_len);
    for (const std::string& strategy : strategy_names()) {
      const Sharded run = run_sharded(problem, {"zigzag", strategy, true}, 6);
      REQUIRE(run.verification.wrong == 0);
      REQUIRE(run.verification.dk_rel_l2 < 1e-5);
    }
  }
}

TEST_CASE("strided tensors of the caller's are used in place") {
  const Sharded dense = run_sharded(two_sequences("causal"), {"zigzag", "ring", true}, 3);
  const Sharded strided = run_sharded(two_sequences("causal"), {"zigzag", "ring", true}, 3, {}, /*padding=*/5);
  REQUIRE(strided.verification.wrong == 0);
  REQUIRE(strided.bytes == dense.bytes);
}
