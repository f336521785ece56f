// What depends on what follows from slices alone.
#include "executor/hazards.hpp"

#include <vector>

#include "schedule/builder.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

std::vector<int> after(const Dependencies& dependencies, int step) {
  const auto steps = dependencies.of(step);
  return {steps.begin(), steps.end()};
}

struct Example {
  ProgramBuilder program{Pass::forward, 0, 2};
  int a = program.buffer("a", BufferKind::key_value, BufferRole::workspace, Dtype::fp32, 8, 2);
  int b = program.buffer("b", BufferKind::key_value, BufferRole::workspace, Dtype::fp32, 8, 2);
};

Exchange receive(const Slice& slice) {
  return {{}, {{slice, 1}}, 0};
}
Exchange send(const Slice& slice) {
  return {{{slice, 1}}, {}, 0};
}

}  // namespace

TEST_CASE("a read waits for the last write of what it reads") {
  Example e;
  e.program.add(receive(e.program.all(e.a)));
  e.program.add(receive(e.program.all(e.b)));
  e.program.add(Copy{e.program.all(e.b), e.program.all(e.a)});
  const Dependencies d(e.program.program());
  REQUIRE(after(d, 0) == std::vector<int>{});
  REQUIRE(after(d, 1) == std::vector<int>{});
  REQUIRE(after(d, 2) == std::vector<int>{0, 1});
}

TEST_CASE("reads do not wait for reads, a write waits for all of them") {
  Example e;
  e.program.add(receive(e.program.all(e.a)));
  e.program.add(send(e.program.all(e.a)));
  e.program.add(send(e.program.all(e.a)));
  e.program.add(receive(e.program.all(e.a)));
  const Dependencies d(e.program.program());
  REQUIRE(after(d, 1) == std::vector<int>{0});
  REQUIRE(after(d, 2) == std::vector<int>{0});
  REQUIRE(after(d, 3) == std::vector<int>{0, 1, 2});
}

TEST_CASE("halves of a buffer, by tokens or by heads, do not wait for each other") {
  Example e;
  e.program.add(receive(e.program.tokens(e.a, {0, 4})));
  e.program.add(send(e.program.tokens(e.a, {4, 8})));
  e.program.add(receive(ProgramBuilder::heads(e.program.all(e.b), 0, 1)));
  e.program.add(send(ProgramBuilder::heads(e.program.all(e.b), 1, 1)));
  const Dependencies d(e.program.program());
  for (int step : {0, 1, 2, 3}) REQUIRE(after(d, step) == std::vector<int>{});
}

TEST_CASE("what a write covers is forgotten: whoever follows the write follows it too") {
  Example e;
  e.program.add(receive(e.program.tokens(e.a, {0, 4})));
  e.program.add(send(e.program.tokens(e.a, {0, 4})));
  e.program.add(receive(e.program.all(e.a)));
  e.program.add(send(e.program.all(e.a)));
  const Dependencies d(e.program.program());
  REQUIRE(after(d, 2) == std::vector<int>{0, 1});
  REQUIRE(after(d, 3) == std::vector<int>{2});
}

TEST_CASE("updates of one state stay in program order, which fixes the order of every sum") {
  ProgramBuilder program(Pass::forward, 0, 1);
  const int x = program.buffer("x", BufferKind::state, BufferRole::workspace, Dtype::fp32, 4, 1);
  const int y = program.buffer("y", BufferKind::state, BufferRole::workspace, Dtype::fp32, 4, 1);
  program.add(Clear{program.all(x)});
  program.add(Clear{program.all(y)});
  program.add(Merge{program.all(x), program.all(y)});
  program.add(Merge{program.all(x), program.all(y)});
  const Dependencies d(program.program());
  REQUIRE(after(d, 2) == std::vector<int>{0, 1});
  REQUIRE(after(d, 3) == std::vector<int>{1, 2});
}
