// Every strategy x layout x mask x world size is proved: each admitted pair visited once, each gradient home, no
// deadlock, no hazard, no needless step.
#include <string>
#include <vector>

#include "orrery/check.hpp"
#include "support/cases.hpp"
#include "support/catch.hpp"
#include "support/strategies.hpp"

using namespace orrery;

namespace {

AttentionProblem small_problem(std::int64_t seq_len, const std::string& mask, int kv_heads = 2) {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = 2 * kv_heads;
  problem.kv_heads = kv_heads;
  problem.head_dim = 8;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

const std::vector<std::string> kMasks = {
    "full",
    "causal",
    "window:5,3",
    "causal+window:9",
    "causal+window:4+sinks:3",
    "causal+prefix:11",
    "documents:13,0,20,7",
    "causal+documents:13,0,20,7",
    "causal+window:6+sinks:2+documents:13,0,20,7",
};
constexpr std::int64_t kSeqLen = 40;

std::string prove(const std::string& mask, const std::string& layout, const std::string& strategy, int world_size,
                  int kv_heads = 2, std::int64_t seq_len = kSeqLen) {
  const PlanOptions options{layout, strategy, true};
  const Plan plan = make_plan(small_problem(seq_len, mask, kv_heads), Topology::single_node(world_size), options);
  // Stripes wider apart than a window is wide: rows in the gaps travel too, which is known and harmless (mask.hpp,
  // keys_seen).
  const bool gaps_travel = plan.problem.mask.has_window() && layout.starts_with("striped");
  std::string text;
  for (const Finding& finding : check(plan, {.needless = !gaps_travel})) text += to_text(finding) + "\n";
  return text;
}

}  // namespace

TEST_CASE("every strategy, layout, mask and world size is proved") {
  test::Cases cases;
  for (const std::string& strategy : test::strategy_texts()) {
    for (const char* layout : {"contiguous", "zigzag", "striped", "striped:3"}) {
      for (const std::string& mask : kMasks) {
        for (int world_size : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16}) {
          if (!cases.runs_next()) continue;
          INFO(strategy << " " << layout << " " << mask << " P=" << world_size);
          REQUIRE(prove(mask, layout, strategy, world_size) == "");
        }
      }
    }
  }
}

TEST_CASE("rings that take blocks together are proved") {
  test::Cases cases;
  for (const char* layout : {"contiguous", "zigzag", "striped", "striped:3"}) {
    for (const std::string& mask : kMasks) {
      for (int world_size : {2, 3, 4, 5, 6, 7, 8, 9, 12, 16}) {
        for (const auto& [forward, backward] :
             {std::pair(10, 10), std::pair(20, 20), std::pair(1000, 1000), std::pair(1000, 0), std::pair(0, 1000)}) {
          for (bool keep : {true, false}) {
            if (!cases.runs_next()) continue;
            const std::string strategy = test::ring_with(forward, backward, keep);
            INFO(strategy << " " << layout << " " << mask << " P=" << world_size);
            REQUIRE(prove(mask, layout, strategy, world_size) == "");
          }
        }
      }
    }
  }
  REQUIRE(prove("causal", "zigzag", test::ring_with(100, 100), 7, 1, 5) == "");
  REQUIRE(prove("causal", "zigzag", test::ring_with(100, 100), 7, 1) == "");
  REQUIRE(prove("full", "contiguous", test::ring_with(100, 100), 4, 1) == "");
}

TEST_CASE("a single KV head, and head counts that do not divide into groups, are proved") {
  for (const std::string& strategy : test::strategy_names()) {
    for (int kv_heads : {1, 3, 9}) {
      for (int world_size : {1, 2, 3, 4, 7}) {
        INFO(strategy << " kv_heads=" << kv_heads << " P=" << world_size);
        REQUIRE(prove("causal", "zigzag", strategy, world_size, kv_heads) == "");
        REQUIRE(prove("causal+documents:13,0,20,7", "contiguous", test::with(strategy, "keep", "no"), world_size,
                      kv_heads) == "");
      }
    }
  }
}

TEST_CASE("documents whose rows travel in many ranges are proved") {
  std::string mask = "causal+documents:";
  std::int64_t seq_len = 0;
  for (int d = 0; d < 40; ++d) {
    const int length = 1 + d * 5 % 17;
    mask += (d == 0 ? "" : ",") + std::to_string(length);
    seq_len += length;
  }
  for (const std::string& strategy : test::strategy_names()) {
    for (int world_size : {2, 3, 4, 5, 8, 13}) {
      INFO(strategy << " P=" << world_size);
      REQUIRE(prove(mask, "zigzag", strategy, world_size, 2, seq_len) == "");
      REQUIRE(prove(mask, "zigzag", test::with(strategy, "keep", "no"), world_size, 1, seq_len) == "");
    }
  }
}

TEST_CASE("sequences shorter than the world leave ranks without tokens, and are proved") {
  for (const std::string& strategy : test::strategy_names()) {
    for (const char* layout : {"contiguous", "zigzag", "striped"}) {
      for (std::int64_t seq_len : {0, 1, 2, 3, 5, 7}) {
        INFO(strategy << " " << layout << " seq_len=" << seq_len);
        REQUIRE(prove("causal", layout, strategy, 6, 1, seq_len) == "");
        REQUIRE(prove("full", layout, test::with(strategy, "keep", "no"), 6, 2, seq_len) == "");
      }
    }
  }
}

TEST_CASE("a causal zigzag ring of 256 ranks is proved in seconds") {
  Plan plan = make_plan(small_problem(1 << 20, "causal"), Topology::single_node(256), {"zigzag", "ring", true});
  REQUIRE(check(plan).empty());
}
