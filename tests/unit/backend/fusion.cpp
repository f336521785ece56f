#include "backend/cuda/fusion.hpp"

#include "orrery/plan.hpp"
#include "schedule/builder.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

// clear, then attends over `heads` of the state each, then normalize.
struct Example {
  ProgramBuilder program{Pass::forward, 0, 1};
  int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 4);
  int keys = program.buffer("keys", BufferKind::key_value, BufferRole::input, Dtype::bf16, 8, 4);
  int state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, 8, 4);
  int output = program.buffer("output", BufferKind::output, BufferRole::output, Dtype::bf16, 8, 4);

  void clear() { program.add(Clear{program.all(state)}); }
  void attend(int head_begin, int heads) {
    const auto of = [&](int buffer) { return Slice{buffer, 0, 8, head_begin, heads}; };
    program.add(Attend{of(query), of(keys), of(state), {{0, 8, 1}}, {{0, 8, 1}}, true});
  }
  void normalize() { program.add(Normalize{program.all(output), program.all(state)}); }
  std::vector<cuda::StepFusion> fused() const { return cuda::fuse(program.program()); }
};

}  // namespace

TEST_CASE("one attend over all rows takes over the clear before it and the normalize behind it") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.normalize();
  const auto fused = e.fused();
  REQUIRE((fused[0].skipped && fused[2].skipped));
  REQUIRE((fused[1].clear == 0 && fused[1].finish == 2));
  REQUIRE(fused[1].output == e.program.all(e.output));
}

TEST_CASE("of several attends on the same rows the first begins them and the last finishes them") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.attend(0, 4);
  e.attend(0, 4);
  e.normalize();
  const auto fused = e.fused();
  REQUIRE((fused[1].clear == 0 && fused[1].finish < 0));
  REQUIRE((fused[2].clear < 0 && fused[2].finish < 0));
  REQUIRE((fused[3].clear < 0 && fused[3].finish == 4));
}

TEST_CASE("attends on parts that make up the rows share in both, each with its part of the output") {
  Example e;
  e.clear();
  e.attend(0, 3);
  e.attend(3, 1);
  e.normalize();
  const auto fused = e.fused();
  REQUIRE((fused[0].skipped && fused[3].skipped));
  REQUIRE(fused[1].output == Slice{e.output, 0, 8, 0, 3});
  REQUIRE(fused[2].output == Slice{e.output, 0, 8, 3, 1});
}

TEST_CASE("rows that no attend touches are cleared and normalized by themselves") {
  Example e;
  e.clear();
  e.attend(0, 3);
  e.normalize();
  const auto fused = e.fused();
  REQUIRE_FALSE((fused[0].skipped || fused[2].skipped));
  REQUIRE((fused[1].clear < 0 && fused[1].finish < 0));
}

TEST_CASE("a state that is used again is not finished early") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.normalize();
  e.attend(0, 4);
  const auto fused = e.fused();
  REQUIRE(fused[0].skipped);
  REQUIRE_FALSE(fused[2].skipped);
}

namespace {

// The steps of a backward pass: heads are those of the key-values.
struct BackwardExample {
  ProgramBuilder program{Pass::backward, 0, 2};
  int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 8);
  int keys = program.buffer("keys", BufferKind::key_value, BufferRole::input, Dtype::bf16, 8, 4);
  int output = program.buffer("output", BufferKind::output, BufferRole::input, Dtype::bf16, 8, 8);
  int grad_output = program.buffer("grad_output", BufferKind::grad_output, BufferRole::input, Dtype::bf16, 8, 8);
  int grad_query = program.buffer("grad_query", BufferKind::grad_query, BufferRole::output, Dtype::bf16, 8, 8);
  int grad_keys = program.buffer("grad_keys", BufferKind::grad_key_value, BufferRole::output, Dtype::bf16, 8, 4);
  int delta = program.buffer("delta", BufferKind::delta, BufferRole::workspace, Dtype::fp32, 8, 8);
  int query_sum = program.buffer("query_sum", BufferKind::grad_query, BufferRole::workspace, Dtype::fp32, 8, 8);
  int key_sum = program.buffer("key_sum", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32, 8, 4);
  int precise = program.buffer("precise", BufferKind::grad_key_value, BufferRole::output, Dtype::fp32, 8, 4);

  void find_delta() { program.add(Delta{program.all(delta), program.all(output), program.all(grad_output)}); }
  void clear(int buffer) { program.add(Clear{program.all(buffer)}); }
  void attend(Range rows, int head_begin, int heads) {
    const auto of = [&](int buffer) { return Slice{buffer, 0, 8, 2 * head_begin, 2 * heads}; };
    const auto of_keys = [&](int buffer) { return Slice{buffer, rows.begin, rows.size(), head_begin, heads}; };
    program.add(AttendBackward{of(query),
                               of_keys(keys),
                               of(grad_output),
                               of(output),
                               of(delta),
                               of(query_sum),
                               of_keys(key_sum),
                               {{0, 8, 1}},
                               {{rows.begin, rows.size(), 1}},
                               true});
  }
  void attend() { attend({0, 8}, 0, 4); }
  void copy(int into, int from) { program.add(Copy{program.all(into), program.all(from)}); }
  void receive(int into) { program.add(Exchange{{}, {{program.all(into), 1}}, 0}); }
  std::vector<cuda::StepFusion> fused() const { return cuda::fuse(program.program()); }
};

}  // namespace

TEST_CASE("a backward pass of one rank: delta clears dq, and the attend stores the rounded dk and dv") {
  BackwardExample e;
  e.find_delta();
  e.clear(e.query_sum);
  e.clear(e.key_sum);
  e.attend();
  e.copy(e.grad_keys, e.key_sum);
  e.copy(e.grad_query, e.query_sum);
  const auto fused = e.fused();
  REQUIRE((!fused[0].skipped && fused[1].skipped && fused[2].skipped && !fused[3].skipped));
  REQUIRE((fused[4].skipped && !fused[5].skipped));
  REQUIRE((fused[0].clear == 1 && fused[3].clear == 2 && fused[3].finish == 4));
  REQUIRE(fused[3].output == e.program.all(e.grad_keys));
}

TEST_CASE("gradients that arrive are added to, and those that are sent are finished by nobody") {
  BackwardExample e;
  e.receive(e.key_sum);
  e.attend();
  e.copy(e.grad_keys, e.key_sum);
  const auto home = e.fused();
  REQUIRE((home[1].clear < 0 && home[1].finish == 2 && home[2].skipped));

  BackwardExample far;
  far.clear(far.key_sum);
  far.attend();
  far.program.add(Exchange{{{far.program.all(far.key_sum), 1}}, {}, 0});
  const auto visiting = far.fused();
  REQUIRE((visiting[0].skipped && visiting[1].clear == 0 && visiting[1].finish < 0));
}

TEST_CASE("attends on heads and on rows that make up dk and dv each take their part") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend({0, 8}, 0, 1);
  e.attend({0, 3}, 1, 3);
  e.attend({3, 8}, 1, 3);
  e.copy(e.grad_keys, e.key_sum);
  const auto fused = e.fused();
  REQUIRE((fused[0].skipped && fused[4].skipped));
  for (int i : {1, 2, 3}) REQUIRE((fused[i].clear == 0 && fused[i].finish == 4));
  REQUIRE(fused[1].output == Slice{e.grad_keys, 0, 8, 0, 1});
  REQUIRE(fused[2].output == Slice{e.grad_keys, 0, 3, 1, 3});
  REQUIRE(fused[3].output == Slice{e.grad_keys, 3, 5, 1, 3});
}

TEST_CASE("what happens to other rows, or to rows before their last attend, is no hindrance") {
  BackwardExample e;
  e.attend({0, 3}, 0, 4);
  e.program.add(Clear{{e.key_sum, 3, 5, 0, 4}});
  e.attend({3, 8}, 0, 4);
  e.copy(e.grad_keys, e.key_sum);
  const auto fused = e.fused();
  REQUIRE((fused[0].clear < 0 && fused[0].finish == 3));
  REQUIRE((fused[1].skipped && fused[2].clear == 1 && fused[2].finish == 3));
}

TEST_CASE("keys that no attend reads, as nobody sees them, keep their clear and their copy") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend({0, 7}, 0, 4);
  e.copy(e.grad_keys, e.key_sum);
  const auto fused = e.fused();
  REQUIRE_FALSE((fused[0].skipped || fused[2].skipped));
  REQUIRE((fused[1].clear < 0 && fused[1].finish < 0));
}

TEST_CASE("sums that are added to after the last attend, or read after the copy, are not finished early") {
  BackwardExample added;
  added.clear(added.key_sum);
  added.attend();
  added.program.add(Add{added.program.all(added.key_sum), added.program.all(added.precise)});
  added.copy(added.grad_keys, added.key_sum);
  REQUIRE((added.fused()[1].clear == 0 && added.fused()[1].finish < 0 && !added.fused()[3].skipped));

  BackwardExample read;
  read.clear(read.key_sum);
  read.attend();
  read.copy(read.grad_keys, read.key_sum);
  read.copy(read.precise, read.key_sum);
  REQUIRE((read.fused()[1].finish < 0 && !read.fused()[2].skipped));
}

TEST_CASE("results of another dtype than the keys' are copied") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend();
  e.copy(e.precise, e.key_sum);
  REQUIRE((e.fused()[1].finish < 0 && !e.fused()[2].skipped));
}

TEST_CASE("results that are touched between the attend and the copy are copied") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend();
  e.clear(e.grad_keys);
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE((e.fused()[1].finish < 0 && !e.fused()[3].skipped));
}

TEST_CASE("delta clears dq before it or behind it, but not over what others put there, nor rows of another shape") {
  BackwardExample before;
  before.clear(before.query_sum);
  before.find_delta();
  before.attend();
  REQUIRE((before.fused()[0].skipped && before.fused()[1].clear == 0));

  BackwardExample used;
  used.find_delta();
  used.copy(used.grad_query, used.query_sum);
  used.clear(used.query_sum);
  REQUIRE((used.fused()[0].clear < 0 && !used.fused()[2].skipped));

  BackwardExample part;
  part.find_delta();
  part.program.add(Clear{{part.query_sum, 0, 7, 0, 8}});
  REQUIRE((part.fused()[0].clear < 0 && !part.fused()[1].skipped));

  BackwardExample twice;
  twice.find_delta();
  twice.clear(twice.query_sum);
  twice.clear(twice.grad_query);
  REQUIRE((twice.fused()[0].clear == 1 && !twice.fused()[2].skipped));
}

TEST_CASE("of a ring's backward pass the copies are left that no attend can take over") {
  AttentionProblem problem;
  problem.seq_len = 64;
  problem.mask = Mask::parse("causal", 64);
  for (int world_size : {1, 2, 3}) {
    const Plan plan = make_plan(problem, Topology::single_node(world_size), {"zigzag", "ring", true, true});
    for (int rank = 0; rank < world_size; ++rank) {
      const RankProgram& program = plan.program(rank, Pass::backward);
      const auto fused = cuda::fuse(program);
      for (std::size_t i = 0; i < fused.size(); ++i) {
        const auto* copy = std::get_if<Copy>(&program.steps[i]);
        if (std::holds_alternative<Clear>(program.steps[i])) REQUIRE(fused[i].skipped);
        if (copy == nullptr) continue;
        const BufferKind kind = program.buffers[static_cast<std::size_t>(copy->into.buffer)].kind;
        REQUIRE(fused[i].skipped == (kind == BufferKind::grad_key_value));
      }
    }
  }
}
