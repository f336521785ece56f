// Fusion makes a program with fewer steps; that it is the same program is what the checker proves of every plan.
#include "orrery/check.hpp"
#include "orrery/plan.hpp"
#include "schedule/builder.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

// The steps of the fused program; of those that attend, which rows they own and what they do beside.
std::vector<std::string> fused_steps(const RankProgram& program) {
  const RankProgram fused = fuse(program);
  std::vector<std::string> lines;
  for (int i = 0; i < static_cast<int>(fused.steps.size()); ++i) {
    const Step& step = fused.steps[static_cast<std::size_t>(i)];
    if (const Attending* s = attending(step)) {
      lines.push_back(concat(name_of(step), " into ", to_text(fused, s->owned), s->begins ? ", begins" : "",
                             s->results.given() ? ", ends in " + to_text(fused, s->results) : ""));
    } else {
      lines.push_back(to_text(fused, i));
    }
  }
  return lines;
}

using Steps = std::vector<std::string>;

// clear, then attends over `heads` of the state each, then normalize.
struct Example {
  ProgramBuilder program{Pass::forward, 0, 1, 64};
  int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 4);
  int keys = program.buffer("keys", BufferKind::key_value, BufferRole::input, Dtype::bf16, 8, 4);
  int state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, 8, 4);
  int output = program.buffer("output", BufferKind::output, BufferRole::output, Dtype::bf16, 8, 4);

  void clear() { program.apply(Operation::clear, {program.all(state)}); }
  void attend(int head_begin, int heads) {
    const auto of = [&](int buffer) { return Slice{buffer, 0, 8, head_begin, heads}; };
    program.add(Attend{{of(query), of(keys), of(state), {{0, 8, 1}}, {{0, 8, 1}}, true}});
  }
  void normalize() { program.apply(Operation::normalize, {program.all(output), program.all(state)}); }
  Steps fused() const { return fused_steps(program.program()); }
};

}  // namespace

TEST_CASE("one attend over all rows takes over the clear before it and the normalize behind it") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.normalize();
  REQUIRE(e.fused() == Steps{"attend into state[0:8], begins, ends in output[0:8]"});
}

TEST_CASE("of several attends on the same rows the first begins them and the last finishes them") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.attend(0, 4);
  e.attend(0, 4);
  e.normalize();
  REQUIRE(e.fused() == Steps{"attend into state[0:8], begins", "attend into state[0:8]",
                             "attend into state[0:8], ends in output[0:8]"});
}

TEST_CASE("attends on parts that make up the rows share in both, each with its part of the output") {
  Example e;
  e.clear();
  e.attend(0, 3);
  e.attend(3, 1);
  e.normalize();
  REQUIRE(e.fused() == Steps{"attend into state[0:8]h[0:3], begins, ends in output[0:8]h[0:3]",
                             "attend into state[0:8]h[3:4], begins, ends in output[0:8]h[3:4]"});
}

TEST_CASE("rows that no attend touches are cleared and normalized by themselves") {
  Example e;
  e.clear();
  e.attend(0, 3);
  e.normalize();
  REQUIRE(e.fused() ==
          Steps{"clear state[0:8]", "attend into state[0:8]h[0:3]", "normalize state[0:8] to output[0:8]"});
}

TEST_CASE("a state that is used again is not finished early") {
  Example e;
  e.clear();
  e.attend(0, 4);
  e.normalize();
  e.attend(0, 4);
  REQUIRE(e.fused() ==
          Steps{"attend into state[0:8], begins", "normalize state[0:8] to output[0:8]", "attend into state[0:8]"});
}

namespace {

// The steps of a backward pass: heads are those of the key-values.
struct BackwardExample {
  ProgramBuilder program{Pass::backward, 0, 2, 64};
  int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 8);
  int keys = program.buffer("keys", BufferKind::key_value, BufferRole::input, Dtype::bf16, 8, 4);
  int output = program.buffer("output", BufferKind::output, BufferRole::input, Dtype::bf16, 8, 8);
  int grad_output = program.buffer("grad_output", BufferKind::grad_output, BufferRole::input, Dtype::bf16, 8, 8);
  int grad_query = program.buffer("grad_query", BufferKind::grad_query, BufferRole::output, Dtype::bf16, 8, 8);
  int grad_keys = program.buffer("grad_keys", BufferKind::grad_key_value, BufferRole::output, Dtype::bf16, 8, 4);
  int delta = program.buffer("delta", BufferKind::delta, BufferRole::workspace, Dtype::fp32, 8, 8);
  int query_sum = program.buffer("query_sum", BufferKind::grad_query, BufferRole::workspace, Dtype::fp32, 8, 8);
  int key_sum = program.buffer("key_sum", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32, 8, 4);
  int other_sum = program.buffer("other_sum", BufferKind::grad_query, BufferRole::workspace, Dtype::fp32, 8, 8);
  int precise = program.buffer("precise", BufferKind::grad_key_value, BufferRole::output, Dtype::fp32, 8, 4);

  void find_delta() {
    program.apply(Operation::delta, {program.all(delta), program.all(output), program.all(grad_output)});
  }
  void clear(int buffer) { program.apply(Operation::clear, {program.all(buffer)}); }
  void attend(Range rows, int head_begin, int heads) {
    const auto of = [&](int buffer) { return Slice{buffer, 0, 8, 2 * head_begin, 2 * heads}; };
    const auto of_keys = [&](int buffer) { return Slice{buffer, rows.begin, rows.size(), head_begin, heads}; };
    program.add(
        AttendBackward{{of(query), of_keys(keys), of_keys(key_sum), {{0, 8, 1}}, {{rows.begin, rows.size(), 1}}, true},
                       of(grad_output),
                       of(output),
                       of(delta),
                       of(query_sum)});
  }
  void attend() { attend({0, 8}, 0, 4); }
  void copy(int into, int from) { program.apply(Operation::copy, {program.all(into), program.all(from)}); }
  void receive(int into) { program.add(Exchange{{}, {{program.all(into), 1}}, 0}); }
  Steps fused() const { return fused_steps(program.program()); }
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
  REQUIRE(e.fused() == Steps{"delta output[0:8] . grad_output[0:8] to delta[0:8], clears query_sum[0:8]",
                             "attend_backward into key_sum[0:8], begins, ends in grad_keys[0:8]",
                             "copy query_sum[0:8] to grad_query[0:8]"});
}

TEST_CASE("gradients that arrive are added to, and those that are sent are finished by nobody") {
  BackwardExample e;
  e.receive(e.key_sum);
  e.attend();
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE(e.fused() == Steps{"exchange lane 0 receive key_sum[0:8] from 1",
                             "attend_backward into key_sum[0:8], ends in grad_keys[0:8]"});

  BackwardExample far;
  far.clear(far.key_sum);
  far.attend();
  far.program.add(Exchange{{{far.program.all(far.key_sum), 1}}, {}, 0});
  REQUIRE(far.fused() == Steps{"attend_backward into key_sum[0:8], begins", "exchange lane 0 send key_sum[0:8] to 1"});
}

TEST_CASE("attends on heads and on rows that make up dk and dv each take their part") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend({0, 8}, 0, 1);
  e.attend({0, 3}, 1, 3);
  e.attend({3, 8}, 1, 3);
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE(e.fused() == Steps{"attend_backward into key_sum[0:8]h[0:1], begins, ends in grad_keys[0:8]h[0:1]",
                             "attend_backward into key_sum[0:3]h[1:4], begins, ends in grad_keys[0:3]h[1:4]",
                             "attend_backward into key_sum[3:8]h[1:4], begins, ends in grad_keys[3:8]h[1:4]"});
}

TEST_CASE("what happens to other rows, or to rows before their last attend, is no hindrance") {
  BackwardExample e;
  e.attend({0, 3}, 0, 4);
  e.program.apply(Operation::clear, {{e.key_sum, 3, 5, 0, 4}});
  e.attend({3, 8}, 0, 4);
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE(e.fused() == Steps{"attend_backward into key_sum[0:3], ends in grad_keys[0:3]",
                             "attend_backward into key_sum[3:8], begins, ends in grad_keys[3:8]"});
}

TEST_CASE("keys that no attend reads, as nobody sees them, keep their clear and their copy") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend({0, 7}, 0, 4);
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE(e.fused() ==
          Steps{"clear key_sum[0:8]", "attend_backward into key_sum[0:7]", "copy key_sum[0:8] to grad_keys[0:8]"});
}

TEST_CASE("sums that are added to after the last attend, or read after the copy, are not finished early") {
  BackwardExample added;
  added.clear(added.key_sum);
  added.attend();
  added.program.apply(Operation::add, {added.program.all(added.key_sum), added.program.all(added.precise)});
  added.copy(added.grad_keys, added.key_sum);
  REQUIRE(added.fused() == Steps{"attend_backward into key_sum[0:8], begins", "add precise[0:8] into key_sum[0:8]",
                                 "copy key_sum[0:8] to grad_keys[0:8]"});

  BackwardExample read;
  read.clear(read.key_sum);
  read.attend();
  read.copy(read.grad_keys, read.key_sum);
  read.copy(read.precise, read.key_sum);
  REQUIRE(read.fused() == Steps{"attend_backward into key_sum[0:8], begins", "copy key_sum[0:8] to grad_keys[0:8]",
                                "copy key_sum[0:8] to precise[0:8]"});
}

TEST_CASE("results of another dtype than the keys' are copied") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend();
  e.copy(e.precise, e.key_sum);
  REQUIRE(e.fused() == Steps{"attend_backward into key_sum[0:8], begins", "copy key_sum[0:8] to precise[0:8]"});
}

TEST_CASE("results that are touched between the attend and the copy are copied") {
  BackwardExample e;
  e.clear(e.key_sum);
  e.attend();
  e.clear(e.grad_keys);
  e.copy(e.grad_keys, e.key_sum);
  REQUIRE(e.fused() == Steps{"attend_backward into key_sum[0:8], begins", "clear grad_keys[0:8]",
                             "copy key_sum[0:8] to grad_keys[0:8]"});
}

TEST_CASE("delta clears dq before it or behind it, but not over what others put there, nor rows of another shape") {
  BackwardExample before;
  before.clear(before.query_sum);
  before.find_delta();
  before.attend();
  const std::string delta = "delta output[0:8] . grad_output[0:8] to delta[0:8]";
  REQUIRE(before.fused() == Steps{delta + ", clears query_sum[0:8]", "attend_backward into key_sum[0:8]"});

  BackwardExample used;
  used.find_delta();
  used.copy(used.grad_query, used.query_sum);
  used.clear(used.query_sum);
  REQUIRE(used.fused() == Steps{delta, "copy query_sum[0:8] to grad_query[0:8]", "clear query_sum[0:8]"});

  BackwardExample part;
  part.find_delta();
  part.program.apply(Operation::clear, {{part.query_sum, 0, 7, 0, 8}});
  REQUIRE(part.fused() == Steps{delta, "clear query_sum[0:7]"});

  BackwardExample rounded;
  rounded.find_delta();
  rounded.clear(rounded.grad_query);  // in bf16
  REQUIRE(rounded.fused() == Steps{delta, "clear grad_query[0:8]"});

  BackwardExample twice;
  twice.find_delta();
  twice.clear(twice.query_sum);
  twice.clear(twice.other_sum);
  REQUIRE(twice.fused() == Steps{delta + ", clears query_sum[0:8]", "clear other_sum[0:8]"});
}

TEST_CASE("of a ring's backward pass the copies are left that no attend can take over") {
  AttentionProblem problem;
  problem.seq_len = 64;
  problem.mask = Mask::parse("causal", 64);
  for (int world_size : {1, 2, 3}) {
    const Plan plan = make_plan(problem, Topology::single_node(world_size), {"zigzag", "ring", true});
    for (int rank = 0; rank < world_size; ++rank) {
      const RankProgram fused = fuse(plan.program(rank, Pass::backward));
      for (const Step& step : fused.steps) {
        REQUIRE(applying(step, Operation::clear) == nullptr);
        const Apply* copy = applying(step, Operation::copy);
        if (copy == nullptr) continue;
        REQUIRE(fused.buffers[static_cast<std::size_t>(copy->at("into").buffer)].kind == BufferKind::grad_query);
      }
    }
  }
}

TEST_CASE("a fused program is what is proved, and printed: an attend that ends its rows too early is found") {
  AttentionProblem problem;
  problem.seq_len = 16;
  problem.heads = 2;
  problem.kv_heads = 1;
  problem.head_dim = 8;
  problem.mask = Mask::causal(16);
  const Plan plan = make_plan(problem, Topology::single_node(2), {"zigzag", "gather"});
  std::vector<RankProgram> programs{fuse(plan.program(0, Pass::forward)), fuse(plan.program(1, Pass::forward))};
  REQUIRE(to_text(programs[0]) == R"(forward rank 0 of 2
  input query: query fp32 8 tokens x 2 heads
  input key_value: key_value fp32 8 tokens x 1 heads
  output output: output fp32 8 tokens x 2 heads
  workspace state: state fp32 8 tokens x 2 heads
  workspace fetched_a: key_value fp32 8 tokens x 1 heads
  0 exchange lane 0 send key_value[0:4] to 1 receive fetched_a[0:8] from 1
  1 attend query[0:8] x key_value[0:8] into state[0:8] at {0+4,12+4} x {0+4,12+4}, begins
  2 attend query[4:8] x fetched_a[0:8] into state[4:8] at {12+4} x {4+8} mask-free
  3 normalize state[0:8] to output[0:8]
)");
  REQUIRE(check(problem, plan.layout, programs, {}).empty());
  auto& own = std::get<Attend>(programs[0].steps[1]);
  own.results = std::get<Apply>(programs[0].steps[3]).at("into");
  const auto findings = check(problem, plan.layout, programs, {});
  REQUIRE_FALSE(findings.empty());
  REQUIRE(to_text(findings[0]).find("unwritten: forward rank 0 step 2: attend") == 0);
}
