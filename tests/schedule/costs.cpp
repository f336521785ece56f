// The formulas of docs/strategies.md, held against what plans report. N tokens, P ranks that divide N (2P for zigzag),
// n = N/P; B = 2 * n * kv_heads * head_dim * bytes of the dtype is one block of key-values, G = 2 * n * kv_heads *
// head_dim * 4 its gradients in fp32. A ring cuts a block in F = min(kv_heads, max(1, ceil(8/P))) pieces forward and
// min(kv_heads, max(2, ceil(8/P))) backward; with P = 6 and 4 KV heads both are 2.
#include <tuple>

#include "executor/hazards.hpp"
#include "orrery/check.hpp"
#include "orrery/plan.hpp"
#include "support/catch.hpp"
#include "support/processor_time.hpp"
#include "support/strategies.hpp"

using namespace orrery;

namespace {

struct Formulas {
  AttentionProblem problem;
  std::int64_t world, n, block, gradients, state;

  Formulas(std::int64_t seq_len, int world_size, const char* mask) : world(world_size), n(seq_len / world_size) {
    problem.batch = 2;
    problem.seq_len = seq_len;
    problem.heads = 8;
    problem.kv_heads = 4;
    problem.head_dim = 16;
    problem.dtype = Dtype::bf16;
    problem.mask = Mask::parse(mask, seq_len);
    block = 2 * n * problem.kv_heads * problem.head_dim * 2 * problem.batch;
    gradients = 2 * n * problem.kv_heads * problem.head_dim * 4 * problem.batch;
    state = n * problem.heads * (problem.head_dim + 2) * 4 * problem.batch;
  }

  ProgramCost of(const char* layout, const char* strategy, int rank, Pass pass, bool keep = true,
                 std::int64_t keys = 0) const {
    std::string text = strategy;
    if (text == "ring") text = test::ring_with(keys, keys, keep);
    const Plan plan = make_plan(problem, Topology::single_node(static_cast<int>(world)), {layout, text, true});
    return cost(plan.program(rank, pass), problem);
  }
};

}  // namespace

TEST_CASE("ring, full mask: P-1 blocks forward, each in F pieces; the state and two blocks") {
  const Formulas f(240, 6, "full");
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost c = f.of("contiguous", "ring", rank, Pass::forward);
    REQUIRE(c.rounds == 2 * (f.world - 1));
    REQUIRE(c.bytes_sent == (f.world - 1) * f.block);
    REQUIRE(c.bytes_received == (f.world - 1) * f.block);
    REQUIRE(c.workspace_bytes + c.kept_bytes == f.state + 2 * f.block);
    REQUIRE(c.pairs == f.n * 240 * f.problem.heads);
  }
}

TEST_CASE("ring, blocks together, full mask: a round for each group, as many bytes; the state and two groups") {
  const Formulas f(360, 9, "full");
  for (int rank = 0; rank < 9; ++rank) {
    const auto at_once = [&](std::int64_t blocks) {
      return f.of("contiguous", "ring", rank, Pass::forward, true, blocks * f.n);
    };
    REQUIRE(at_once(1).rounds == f.world - 1);  // none are joined
    REQUIRE(at_once(2).rounds == 4);            // 2, 2, 2, 2
    REQUIRE(at_once(4).rounds == 3);            // 3, 4, 1: the first comes while one block is computed
    REQUIRE(at_once(100).rounds == 2);          // 3, 5
    REQUIRE(at_once(2).workspace_bytes == f.state + 4 * f.block);
    REQUIRE(at_once(100).workspace_bytes == f.state + 8 * f.block);
    for (std::int64_t blocks : {1, 2, 4, 100}) {
      REQUIRE(at_once(blocks).bytes_sent == (f.world - 1) * f.block);
      REQUIRE(at_once(blocks).pairs == f.n * 360 * f.problem.heads);
    }
    REQUIRE(at_once(2).kept_bytes == 0);
  }
}

TEST_CASE("ring backward, blocks together, full mask: gradients come home in a round for each group") {
  const Formulas f(360, 9, "full");
  const std::int64_t sums = f.n * f.problem.heads * (f.problem.head_dim + 1) * 4 * f.problem.batch;  // dq and delta
  for (int rank = 0; rank < 9; ++rank) {
    for (const auto& [blocks, groups, in_memory] : {std::tuple(2, 4, 4), std::tuple(4, 3, 7), std::tuple(100, 2, 8)}) {
      const ProgramCost c = f.of("contiguous", "ring", rank, Pass::backward, true, blocks * f.n);
      REQUIRE(c.rounds == 2 * groups);
      REQUIRE(c.bytes_sent == (f.world - 1) * (f.block + f.gradients));
      REQUIRE(c.workspace_bytes == sums + f.gradients + in_memory * (f.block + 2 * f.gradients));
      REQUIRE(c.kept_bytes == 0);
    }
  }
}

TEST_CASE("ring, blocks together, causal zigzag: nobody carries what only others need") {
  const Formulas f(360, 9, "causal");
  std::int64_t sent = 0;
  for (int rank = 0; rank < 9; ++rank) {
    const ProgramCost c = f.of("zigzag", "ring", rank, Pass::forward, true, 1000);
    REQUIRE(c.pairs == (f.n * (f.n + 1) / 2 + (f.world - 1) * f.n / 2 * f.n) * f.problem.heads);
    sent += c.bytes_sent;
  }
  REQUIRE(sent == f.world * (f.world - 1) / 2 * (f.block + f.block / 2));  // earlier ranks' halves, later ranks' wholes
}

TEST_CASE("a group of blocks is no larger than what comes while the one before it is computed") {
  const Formulas f(360, 9, "full");
  const auto rounds = [&](double bytes_per_second) {
    Topology topology = Topology::single_node(9);
    topology.inside_node.bytes_per_second = bytes_per_second;
    const Plan plan = make_plan(f.problem, topology, {"contiguous", "ring:keys=1000"});
    return cost(plan.program(0, Pass::forward), f.problem).rounds;
  };
  REQUIRE(rounds(1) == 8);                  // a slow link: one after the other
  REQUIRE(rounds(1e15) == 1);               // all while this rank computes its own
  REQUIRE(rounds(2.1 * 6.5e14 / 40) == 3);  // 2, 4, and the last 2
}

TEST_CASE("two ranks, and links that bring no two blocks at once, keep to the ring") {
  const Formulas two(240, 2, "causal");
  for (int rank = 0; rank < 2; ++rank) {
    const ProgramCost one_by_one = two.of("zigzag", "ring", rank, Pass::forward);
    const ProgramCost asked = two.of("zigzag", "ring", rank, Pass::forward, true, 1000);
    REQUIRE(asked.rounds == one_by_one.rounds);
    REQUIRE(asked.kept_bytes == two.block);
  }
  const Formulas f(360, 9, "full");
  Topology slow = Topology::single_node(9);
  slow.inside_node.bytes_per_second = 1;
  const Plan plan = make_plan(f.problem, slow, {"contiguous", test::ring_with(1000, 1000), true});
  REQUIRE(cost(plan.program(0, Pass::forward), f.problem).kept_bytes == f.block);
}

TEST_CASE("ring backward, full mask: P-2 blocks after the kept one, P-1 gradient hops, no hop more") {
  const Formulas f(240, 6, "full");
  const std::int64_t sums = f.n * f.problem.heads * (f.problem.head_dim + 1) * 4 * f.problem.batch;  // dq and delta
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost kept = f.of("contiguous", "ring", rank, Pass::backward, true);
    REQUIRE(kept.rounds == 2 * (f.world - 2) + 2 * (f.world - 1));
    REQUIRE(kept.bytes_sent == (f.world - 2) * f.block + (f.world - 1) * f.gradients);
    REQUIRE(kept.workspace_bytes + kept.kept_bytes == sums + 2 * f.block + 2 * f.gradients);
    REQUIRE(kept.kept_bytes == f.block);
    const ProgramCost fresh = f.of("contiguous", "ring", rank, Pass::backward, false);
    REQUIRE(fresh.rounds == kept.rounds + 2);
    REQUIRE(fresh.bytes_sent == kept.bytes_sent + f.block);
    REQUIRE(fresh.kept_bytes == 0);
  }
}

TEST_CASE("causal zigzag: every rank has the same work; half blocks travel where only half is needed") {
  const Formulas f(240, 6, "causal");
  std::int64_t sent = 0;
  const std::int64_t half = f.n / 2;
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost c = f.of("zigzag", "ring", rank, Pass::forward);
    // The diagonal, and P-1 rectangles of half a block.
    REQUIRE(c.pairs == (f.n * (f.n + 1) / 2 + (f.world - 1) * half * f.n) * f.problem.heads);
    sent += c.bytes_sent;
  }
  // The second half of a block is needed by the ranks before its owner only, and those come last on the ring: it always
  // travels to the end, but for rank 0's, which nobody needs.
  REQUIRE(sent == 6 * (f.world - 1) * f.block - (f.world - 1) * f.block / 2);
}

TEST_CASE("causal zigzag backward: whole blocks as far as rank 0, halves from there on") {
  for (int world : {3, 4, 6}) {
    const Formulas f(240, world, "causal");
    std::int64_t sent = 0;
    for (int rank = 0; rank < world; ++rank) sent += f.of("zigzag", "ring", rank, Pass::backward).bytes_sent;
    const std::int64_t key_values = (f.world - 2) * (3 * f.world - 1) * f.block / 4;
    const std::int64_t gradients = f.world * (f.world - 1) * f.gradients - (f.world - 1) * f.gradients / 2;
    REQUIRE(sent == key_values + gradients);
  }
}

TEST_CASE("causal stripes of one token: nearly the same work for all") {
  const Formulas f(240, 6, "causal");
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost c = f.of("striped", "ring", rank, Pass::forward);
    const std::int64_t later = f.world - 1 - rank;
    REQUIRE(c.pairs == (f.world * f.n * (f.n + 1) / 2 - later * f.n) * f.problem.heads);
  }
}

TEST_CASE(
    "causal contiguous ring: a block stops at the last rank, and rank r has r times the work of rank 0, and more") {
  const Formulas f(240, 6, "causal");
  std::int64_t sent = 0;
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost c = f.of("contiguous", "ring", rank, Pass::forward);
    REQUIRE(c.pairs == (f.n * (f.n + 1) / 2 + rank * f.n * f.n) * f.problem.heads);
    sent += c.bytes_sent;
  }
  REQUIRE(sent == f.world * (f.world - 1) / 2 * f.block);
}

TEST_CASE("gather, full mask: a round for each group of KV heads; two buffers of the other ranks' keys, of one group") {
  const Formulas f(240, 6, "full");
  const std::int64_t groups = f.problem.kv_heads;
  for (int rank = 0; rank < 6; ++rank) {
    const ProgramCost c = f.of("contiguous", "gather", rank, Pass::forward);
    REQUIRE(c.rounds == groups);
    REQUIRE(c.bytes_sent == (f.world - 1) * f.block);
    REQUIRE(c.workspace_bytes == f.state + 2 * (f.world - 1) * f.block / groups);
    const ProgramCost b = f.of("contiguous", "gather", rank, Pass::backward);
    REQUIRE(b.rounds == 2 * groups);
    REQUIRE(b.bytes_sent == (f.world - 1) * (f.block + f.gradients));
    const std::int64_t sums = f.n * f.problem.heads * (f.problem.head_dim + 1) * 4 * f.problem.batch;
    REQUIRE(b.workspace_bytes ==
            sums + f.gradients + 2 * (f.world - 1) * f.block / groups + 3 * (f.world - 1) * f.gradients / groups);
  }
}

TEST_CASE("a halo: one round, and W tokens, whatever the number of ranks") {
  for (int world : {2, 6, 12}) {
    const Formulas f(240, world, "causal+window:13");
    const ProgramCost c = f.of("contiguous", "gather", world - 1, Pass::forward);
    REQUIRE(c.rounds == 1);
    REQUIRE(c.bytes_received == 13 * f.block / f.n);
    REQUIRE(c.bytes_sent == 0);  // nobody comes after the last rank
  }
}

TEST_CASE("memory follows the tokens a rank owns, not the sequence") {
  const std::int64_t tokens_a_rank = 64;
  const auto workspace = [&](int world) {
    const Formulas f(tokens_a_rank * world, world, "causal");
    const ProgramCost forward = f.of("zigzag", "ring", 1, Pass::forward);
    const ProgramCost backward = f.of("zigzag", "ring", 1, Pass::backward);
    return std::pair(forward.workspace_bytes + forward.kept_bytes, backward.workspace_bytes + backward.kept_bytes);
  };
  REQUIRE(workspace(4) == workspace(8));
  REQUIRE(workspace(4) == workspace(256));
}

TEST_CASE("planning a rank of a 1,024-rank ring takes milliseconds") {
  const Formulas f(1 << 20, 1024, "causal");
  const Plan plan = make_plan(f.problem, Topology::single_node(1024), {"zigzag", "ring", true});
  for (Pass pass : {Pass::forward, Pass::backward}) {
    double best = 1e9;
    for (int i = 0; i < 10; ++i) {
      RankProgram program;
      best = std::min(best, test::processor_seconds([&] {
                        program = plan.program(511, pass);
                        const Dependencies dependencies(program);
                      }));
      REQUIRE(program.steps.size() > 1024);
    }
    INFO(to_string(pass) << " planned in " << best * 1e3 << " ms");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(best < 0.020);
#endif
  }
}

namespace {

// Of the plan, and of what a rank prepares of it.
double planning_seconds(const AttentionProblem& problem, int world_size, const PlanOptions& options) {
  return test::processor_seconds([&] {
    const Plan plan = make_plan(problem, Topology::single_node(world_size), options);
    for (Pass pass : {Pass::forward, Pass::backward}) {
      const RankProgram program = plan.program(world_size / 2, pass);
      validate(program, problem);
      const Dependencies dependencies(program);
      REQUIRE(cost(program, problem).pairs >= 0);
    }
  });
}

// Of 9 to 30 tokens.
AttentionProblem many_documents(int count) {
  std::string mask = "causal+documents:";
  std::int64_t seq_len = 0;
  for (int d = 0; d < count; ++d) {
    const int length = 9 + d * 7 % 22;
    mask += (d == 0 ? "" : ",") + std::to_string(length);
    seq_len += length;
  }
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = problem.kv_heads = 2;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

}  // namespace

TEST_CASE("planning a rank takes time in proportion to the documents") {
  const std::tuple<const char*, const char*> choices[] = {{"auto", "auto"}, {"zigzag", "ring"}, {"zigzag", "gather"}};
  for (const auto& [layout, strategy] : choices) {
    const PlanOptions options{.layout = layout, .strategy = strategy, .backward = true};
    const double few = planning_seconds(many_documents(5'000), 4, options);
    const double many = planning_seconds(many_documents(50'000), 4, options);
    INFO(layout << ' ' << strategy << ": " << few << " s for 5,000 documents, " << many << " s for 50,000");
    CHECK(test::in_proportion(few, many));
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(many < (options.layout == "auto" ? 1 : 3));
#endif
  }
  const double most = planning_seconds(many_documents(1'000'000), 4, {.backward = true});
  INFO(most << " s for 1,000,000 documents");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(most < 1);
#endif
}

TEST_CASE("a proof takes time in proportion to the documents") {
  const auto seconds = [](int documents) {
    const Plan plan = make_plan(many_documents(documents), Topology::single_node(4),
                                {.layout = "zigzag", .strategy = "ring", .backward = true});
    return test::processor_seconds([&] { REQUIRE(check(plan, {.fused = false}).empty()); });
  };
  const double few = seconds(150), many = seconds(1'500);
  INFO(few << " s for 150 documents, " << many << " s for 1,500");
  CHECK(test::in_proportion(few, many));
}

TEST_CASE("planning a rank takes time in proportion to the ranks, though shards are empty or windows leave gaps") {
  for (const char* mask : {"causal", "full", "causal+window:700", "causal+documents:400,600"}) {
    for (const char* layout : {"contiguous", "zigzag"}) {
      AttentionProblem problem;
      problem.seq_len = 1000;
      problem.heads = problem.kv_heads = 2;
      problem.mask = Mask::parse(mask, problem.seq_len);
      const PlanOptions options{.layout = layout, .strategy = "ring", .backward = true};
      const double few = planning_seconds(problem, 256, options), many = planning_seconds(problem, 2048, options);
      INFO(mask << ' ' << layout << ": " << few << " s for 256 ranks, " << many << " s for 2,048");
      CHECK(many < 30 * few + 0.02);
    }
  }
}
