#include "backend/cuda/fusion.hpp"

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
  REQUIRE((fused[1].clear == 0 && fused[1].normalize == 2));
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
  REQUIRE((fused[1].clear == 0 && fused[1].normalize < 0));
  REQUIRE((fused[2].clear < 0 && fused[2].normalize < 0));
  REQUIRE((fused[3].clear < 0 && fused[3].normalize == 4));
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
  REQUIRE((fused[1].clear < 0 && fused[1].normalize < 0));
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
