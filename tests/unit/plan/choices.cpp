#include <string>
#include <vector>

#include "orrery/plan.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"
#include "support/strategies.hpp"

using namespace orrery;
using test::problem_of;

namespace {

std::string documents(const std::vector<std::int64_t>& lengths) {
  std::string text = "documents:";
  for (std::int64_t length : lengths) text += (text.back() == ':' ? "" : ",") + std::to_string(length);
  return text;
}

Plan planned(const AttentionProblem& problem, int world_size, const PlanOptions& options = {}) {
  return make_plan(problem, Topology::single_node(world_size), options);
}

std::int64_t bytes_sent(const Plan& plan) {
  std::int64_t bytes = 0;
  for (int rank = 0; rank < plan.topology.world_size; ++rank) {
    bytes += cost(plan.program(rank, Pass::forward), plan.problem).bytes_sent;
  }
  return bytes;
}

}  // namespace

TEST_CASE("short documents stay whole on contiguous shards, and long ones are dealt out in zigzag") {
  const std::int64_t total = 12'000;
  for (const auto& [length, layout] : {std::pair(1, "contiguous"),
                                       {20, "contiguous"},
                                       {100, "contiguous"},
                                       {1000, "contiguous"},
                                       {12'000, "zigzag"}}) {
    const auto lengths = std::vector<std::int64_t>(static_cast<std::size_t>(total / length), length);
    for (const std::string& strategy : test::strategy_names()) {
      INFO(length << " tokens a document, " << strategy);
      const Plan plan = planned(problem_of("causal+" + documents(lengths), total), 4, {.strategy = strategy});
      CHECK(plan.layout.text() == layout);
      const Plan contiguous = planned(plan.problem, 4, {.layout = "contiguous", .strategy = strategy});
      if (length < total) CHECK(bytes_sent(plan) == bytes_sent(contiguous));
    }
  }
  // As many pairs in one document that two ranks share as in all others: evened out, though all documents are cut.
  std::vector<std::int64_t> lengths(1, 30'000);
  lengths.resize(31, 1000);
  CHECK(planned(problem_of("causal+" + documents(lengths), 60'000), 4).layout.text() == "zigzag");
}

TEST_CASE("documents of different lengths are evened out without a causal mask too") {
  CHECK(planned(problem_of("full", 4000), 4).layout.text() == "contiguous");
  const Plan plan = planned(problem_of(documents({20'000, 5000, 5000, 5000, 5000}), 40'000), 4);
  CHECK(plan.layout.text() == "zigzag");
}

TEST_CASE("a window that reaches less than a shard makes a halo; one that hides nothing is as none") {
  const Plan halo = planned(problem_of("causal+window:100", 4000), 4);
  CHECK(halo.layout.text() == "contiguous");
  CHECK(halo.strategy == "gather");
  const Plan wide = planned(problem_of("causal+window:4000", 4000), 4);
  CHECK(wide.layout.text() == "zigzag");
  CHECK(wide.strategy == "ring");
}

TEST_CASE("the reason speaks of layout and strategy apart, and claims nothing of what was asked for") {
  const AttentionProblem causal = problem_of("causal", 4000);
  const std::string zigzag = "zigzag: contiguous gives a rank 1.";
  const std::string ring = "; ring: its memory does not grow with the number of ranks";
  const std::string chosen = planned(causal, 4).reason;
  CHECK(chosen.rfind(zigzag, 0) == 0);
  CHECK(chosen.find(ring) != std::string::npos);
  CHECK(planned(causal, 4, {.layout = "contiguous"}).reason == "contiguous: asked for" + ring);
  CHECK(planned(causal, 4, {.layout = "striped:8"}).reason == "striped:8: asked for" + ring);
  const std::string gather = planned(causal, 4, {.strategy = "gather"}).reason;
  CHECK(gather.rfind(zigzag, 0) == 0);
  CHECK(gather.find("; gather: asked for") != std::string::npos);
  CHECK(planned(causal, 4, {.layout = "zigzag", .strategy = "ring"}).reason == "zigzag: asked for; ring: asked for");
  CHECK(planned(causal, 1).reason == "contiguous: one rank has all positions" + ring);
}
