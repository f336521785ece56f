// Small programs in full, so that a change of schedule is seen for what it is.
#include "orrery/plan.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

std::string program(const std::string& layout, const std::string& strategy, const std::string& mask, int world_size,
                    int rank, Pass pass) {
  AttentionProblem problem;
  problem.seq_len = 16;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 8;
  problem.mask = Mask::parse(mask, problem.seq_len);
  const Plan plan = make_plan(problem, Topology::single_node(world_size), {layout, strategy, true});
  return to_text(plan.program(rank, pass));
}

}  // namespace

TEST_CASE("the causal zigzag ring: off the diagonal there are only mask-free rectangles") {
  REQUIRE(program("zigzag", "ring", "causal", 4, 1, Pass::forward) == R"(forward rank 1 of 4
  input query: query fp32 4 tokens x 4 heads
  input key_value: key_value fp32 4 tokens x 2 heads
  output output: output fp32 4 tokens x 4 heads
  workspace state: state fp32 4 tokens x 4 heads
  kept key_value_a: key_value fp32 4 tokens x 2 heads
  workspace key_value_b: key_value fp32 4 tokens x 2 heads
  0 exchange lane 0 send key_value[0:4]h[0:1] to 2 receive key_value_a[0:2]h[0:1] from 0
  1 exchange lane 0 send key_value[0:4]h[1:2] to 2 receive key_value_a[0:2]h[1:2] from 0
  2 clear state[0:4]
  3 attend query[0:4] x key_value[0:4] into state[0:4] at {2+2,12+2} x {2+2,12+2}
  4 exchange lane 0 send key_value_a[0:2]h[0:1] to 2 receive key_value_b[0:4]h[0:1] from 0
  5 exchange lane 0 send key_value_a[0:2]h[1:2] to 2 receive key_value_b[0:4]h[1:2] from 0
  6 attend query[0:4]h[0:2] x key_value_a[0:2]h[0:1] into state[0:4]h[0:2] at {2+2,12+2} x {0+2} mask-free
  7 attend query[0:4]h[2:4] x key_value_a[0:2]h[1:2] into state[0:4]h[2:4] at {2+2,12+2} x {0+2} mask-free
  8 exchange lane 0 send key_value_b[0:4]h[0:1] to 2 receive key_value_a[0:4]h[0:1] from 0
  9 exchange lane 0 send key_value_b[0:4]h[1:2] to 2 receive key_value_a[0:4]h[1:2] from 0
  10 attend query[2:4]h[0:2] x key_value_b[0:4]h[0:1] into state[2:4]h[0:2] at {12+2} x {6+4} mask-free
  11 attend query[2:4]h[2:4] x key_value_b[0:4]h[1:2] into state[2:4]h[2:4] at {12+2} x {6+4} mask-free
  12 attend query[2:4]h[0:2] x key_value_a[0:4]h[0:1] into state[2:4]h[0:2] at {12+2} x {4+2,10+2} mask-free
  13 attend query[2:4]h[2:4] x key_value_a[0:4]h[1:2] into state[2:4]h[2:4] at {12+2} x {4+2,10+2} mask-free
  14 normalize state[0:4] to output[0:4]
)");
}

TEST_CASE("blocks taken together come from their owners, and lie in the order of their positions") {
  REQUIRE(program("zigzag", "ring:keys=16,backward-keys=16", "causal", 4, 1, Pass::forward) == R"(forward rank 1 of 4
  input query: query fp32 4 tokens x 4 heads
  input key_value: key_value fp32 4 tokens x 2 heads
  output output: output fp32 4 tokens x 4 heads
  workspace state: state fp32 4 tokens x 4 heads
  workspace fetched_a: key_value fp32 10 tokens x 2 heads by token
  0 exchange lane 0 by token send key_value[0:2] to 2 send key_value[0:2] to 3 send key_value[0:2] to 0 send key_value[2:4] to 0 receive fetched_a[0:2] from 0 receive fetched_a[4:8] from 3 receive fetched_a[2:4] from 2 receive fetched_a[8:10] from 2
  1 clear state[0:4]
  2 attend query[0:4] x key_value[0:4] into state[0:4] at {2+2,12+2} x {2+2,12+2}
  3 attend query[0:4] x fetched_a[0:10] into state[0:4] at {2+2,12+2} x {0+2,4+2,6+4,10+2}
  4 normalize state[0:4] to output[0:4]
)");
}

TEST_CASE("the ring backward: gradients travel in two pieces, one behind the other") {
  REQUIRE(program("zigzag", "ring", "causal", 2, 0, Pass::backward) == R"(backward rank 0 of 2
  input query: query fp32 8 tokens x 4 heads
  input key_value: key_value fp32 8 tokens x 2 heads
  input output: output fp32 8 tokens x 4 heads
  input grad_output: grad_output fp32 8 tokens x 4 heads
  output grad_query: grad_query fp32 8 tokens x 4 heads
  output grad_key_value: grad_key_value fp32 8 tokens x 2 heads
  workspace delta: delta fp32 8 tokens x 4 heads
  workspace grad_query_sum: grad_query fp32 8 tokens x 4 heads
  workspace grad_key_value_sum_a: grad_key_value fp32 8 tokens x 2 heads
  kept key_value_a: key_value fp32 8 tokens x 2 heads
  workspace grad_key_value_sum_b: grad_key_value fp32 8 tokens x 2 heads
  0 delta output[0:8] . grad_output[0:8] to delta[0:8]
  1 clear grad_query_sum[0:8]
  2 clear grad_key_value_sum_a[0:8]h[0:1]
  3 attend_backward query[4:8]h[0:2] x key_value_a[0:8]h[0:1] into grad_query_sum[4:8]h[0:2] and grad_key_value_sum_a[0:8]h[0:1] at {12+4} x {4+8} mask-free
  4 exchange lane 1 send grad_key_value_sum_a[0:8]h[0:1] to 1 receive grad_key_value_sum_b[0:4]h[0:1] from 1
  5 clear grad_key_value_sum_a[0:8]h[1:2]
  6 attend_backward query[4:8]h[2:4] x key_value_a[0:8]h[1:2] into grad_query_sum[4:8]h[2:4] and grad_key_value_sum_a[0:8]h[1:2] at {12+4} x {4+8} mask-free
  7 exchange lane 1 send grad_key_value_sum_a[0:8]h[1:2] to 1 receive grad_key_value_sum_b[0:4]h[1:2] from 1
  8 clear grad_key_value_sum_b[4:8]h[0:1]
  9 attend_backward query[0:8]h[0:2] x key_value[0:8]h[0:1] into grad_query_sum[0:8]h[0:2] and grad_key_value_sum_b[0:8]h[0:1] at {0+4,12+4} x {0+4,12+4}
  10 clear grad_key_value_sum_b[4:8]h[1:2]
  11 attend_backward query[0:8]h[2:4] x key_value[0:8]h[1:2] into grad_query_sum[0:8]h[2:4] and grad_key_value_sum_b[0:8]h[1:2] at {0+4,12+4} x {0+4,12+4}
  12 copy grad_key_value_sum_b[0:8] to grad_key_value[0:8]
  13 copy grad_query_sum[0:8] to grad_query[0:8]
)");
}

TEST_CASE("a window on contiguous shards is a halo exchange in one round") {
  REQUIRE(program("contiguous", "gather", "causal+window:3", 4, 2, Pass::forward) == R"(forward rank 2 of 4
  input query: query fp32 4 tokens x 4 heads
  input key_value: key_value fp32 4 tokens x 2 heads
  output output: output fp32 4 tokens x 4 heads
  workspace state: state fp32 4 tokens x 4 heads
  workspace fetched_a: key_value fp32 3 tokens x 2 heads
  0 exchange lane 0 send key_value[1:4] to 3 receive fetched_a[0:3] from 1
  1 clear state[0:4]
  2 attend query[0:4] x key_value[0:4] into state[0:4] at {8+4} x {8+4}
  3 attend query[0:3] x fetched_a[0:3] into state[0:3] at {8+3} x {5+3}
  4 normalize state[0:4] to output[0:4]
)");
}
