// What depends on what follows from slices alone.
#include "executor/hazards.hpp"

#include <optional>
#include <vector>

#include "schedule/builder.hpp"
#include "support/catch.hpp"
#include "support/processor_time.hpp"

using namespace orrery;

namespace {

std::vector<int> after(const Dependencies& dependencies, int step) {
  const auto steps = dependencies.of(step);
  return {steps.begin(), steps.end()};
}

struct Example {
  ProgramBuilder program{Pass::forward, 0, 2, 64};
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
  e.program.apply(Operation::copy, {e.program.all(e.b), e.program.all(e.a)});
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
  ProgramBuilder program(Pass::forward, 0, 1, 64);
  const int x = program.buffer("x", BufferKind::state, BufferRole::workspace, Dtype::fp32, 4, 1);
  const int y = program.buffer("y", BufferKind::state, BufferRole::workspace, Dtype::fp32, 4, 1);
  program.apply(Operation::clear, {program.all(x)});
  program.apply(Operation::clear, {program.all(y)});
  program.apply(Operation::merge, {program.all(x), program.all(y)});
  program.apply(Operation::merge, {program.all(x), program.all(y)});
  const Dependencies d(program.program());
  REQUIRE(after(d, 2) == std::vector<int>{0, 1});
  REQUIRE(after(d, 3) == std::vector<int>{1, 2});
}

TEST_CASE("rows that are cut in many transfers are compared as the rows they are") {
  Example e;
  const Slice left = ProgramBuilder::heads(e.program.all(e.a), 0, 1),
              right = ProgramBuilder::heads(e.program.all(e.a), 1, 1);
  const auto part = [](Slice s, std::int64_t begin, std::int64_t tokens) {
    return Slice{s.buffer, begin, tokens, s.head_begin, s.heads};
  };
  e.program.add(Exchange{{}, {{part(left, 4, 2), 1}, {part(right, 0, 2), 1}, {part(left, 0, 2), 1}}, 0});
  e.program.add(send(part(left, 2, 2)));                    // between the two ranges that step 0 receives
  e.program.add(send(part(right, 1, 1)));                   // of its other head
  e.program.add(Exchange{{}, {{part(left, 0, 5), 1}}, 0});  // over two ranges, the second in part
  e.program.add(send(part(left, 5, 1)));                    // what is left of that
  e.program.add(Exchange{{}, {{e.program.all(e.a), 1}}, 0});
  const Dependencies d(e.program.program());
  REQUIRE(after(d, 1) == std::vector<int>{});
  REQUIRE(after(d, 2) == std::vector<int>{0});
  REQUIRE(after(d, 3) == std::vector<int>{0, 1});
  REQUIRE(after(d, 4) == std::vector<int>{0});
  REQUIRE(after(d, 5) == std::vector<int>{0, 2, 3, 4});
}

TEST_CASE("a program with a million transfers is validated, and its dependencies found, in under a second") {
  AttentionProblem problem;
  problem.heads = problem.kv_heads = 2;
  const std::int64_t documents = 1'000'000, tokens = 4 * documents;
  problem.seq_len = 2 * tokens;
  problem.mask = Mask::full(problem.seq_len);
  ProgramBuilder program(Pass::forward, 0, 2, problem.head_dim);
  const int own = program.buffer("own", BufferKind::key_value, BufferRole::input, Dtype::bf16, tokens, 2);
  const int block = program.buffer("block", BufferKind::key_value, BufferRole::workspace, Dtype::bf16, tokens, 2);
  const int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, tokens, 2);
  const int state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, tokens, 2);
  Exchange exchange;
  for (std::int64_t d = 0; d < documents; ++d) {
    exchange.sends.push_back({{own, 4 * d, 2, 0, 2}, 1});
    exchange.receives.push_back({{block, 4 * d + 1, 2, 0, 2}, 1});
  }
  program.add(exchange);
  program.apply(Operation::clear, {program.all(state)});
  program.add(
      Attend{{program.all(query), program.all(block), program.all(state), {{0, tokens, 1}}, {{tokens, tokens, 1}}}});
  program.add(exchange);
  std::optional<Dependencies> found;
  const double seconds = test::processor_seconds([&] {
    validate(program.program(), problem);
    found.emplace(program.program());
  });
  const Dependencies& d = *found;
  REQUIRE(after(d, 2) == std::vector<int>{0, 1});
  REQUIRE(after(d, 3) == std::vector<int>{0, 2});
  INFO(seconds << " s");
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(seconds < 1);
#endif
}
