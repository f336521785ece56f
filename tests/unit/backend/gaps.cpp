#include "backend/cuda/gaps.hpp"

#include "orrery/plan.hpp"
#include "schedule/builder.hpp"
#include "support/catch.hpp"
#include "support/processor_time.hpp"

using namespace orrery;

namespace {

struct Example {
  ProgramBuilder program{Pass::forward, 0, 2, 64};
  int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 4);
  int own = program.buffer("own", BufferKind::key_value, BufferRole::input, Dtype::bf16, 8, 4);
  int block = program.buffer("block", BufferKind::key_value, BufferRole::workspace, Dtype::bf16, 8, 4);
  int state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, 8, 4);

  void receive(const Slice& slice) { program.add(Exchange{{}, {{slice, 1}}, 0}); }
  void attend(const Slice& keys) {
    program.add(Attend{{program.all(query), keys, program.all(state), {{0, 8, 1}}, {{0, keys.tokens, 1}}, false}});
  }
  std::vector<Slice> gaps() const { return cuda::gaps(program.program()); }
};

std::int64_t area(const std::vector<Slice>& slices) {
  std::int64_t sum = 0;
  for (const Slice& s : slices) sum += s.tokens * s.heads;
  return sum;
}

}  // namespace

TEST_CASE("a block that is received whole has no gaps, nor has a tensor of the caller's") {
  Example e;
  e.attend(e.program.all(e.own));
  e.receive(e.program.all(e.block));
  e.attend(e.program.all(e.block));
  REQUIRE(e.gaps().empty());
}

TEST_CASE("rows between those received are gaps, when an attend reads over them") {
  Example e;
  e.receive({e.block, 0, 2, 0, 4});
  e.receive({e.block, 5, 3, 0, 4});
  e.attend(e.program.all(e.block));
  REQUIRE(e.gaps() == std::vector<Slice>{{e.block, 2, 3, 0, 4}});
}

TEST_CASE("heads that are not received are gaps") {
  Example e;
  e.receive({e.block, 2, 4, 1, 2});
  e.attend({e.block, 0, 8, 1, 3});
  const std::vector<Slice> found = e.gaps();
  REQUIRE(area(found) == 8 * 3 - 4 * 2);
  for (const Slice& gap : found) {
    REQUIRE(contains({e.block, 0, 8, 1, 3}, gap));
    REQUIRE_FALSE(overlap(gap, {e.block, 2, 4, 1, 2}));
    for (const Slice& other : found) REQUIRE((gap == other || !overlap(gap, other)));
  }
}

TEST_CASE("rows that nobody reads are no gaps, and a gap is one once") {
  Example e;
  e.receive({e.block, 0, 2, 0, 4});
  e.attend({e.block, 0, 4, 0, 4});
  e.attend({e.block, 0, 5, 0, 4});
  REQUIRE(area(e.gaps()) == 3 * 4);
}

TEST_CASE("rows that arrive after they are read are gaps for the first reader only") {
  Example e;
  e.attend({e.block, 0, 2, 0, 4});
  e.receive(e.program.all(e.block));
  e.attend(e.program.all(e.block));
  REQUIRE(e.gaps() == std::vector<Slice>{{e.block, 0, 2, 0, 4}});
}

TEST_CASE("gaps between many rows are found in time in proportion to them") {
  const auto seconds = [](std::int64_t documents) {
    ProgramBuilder program(Pass::forward, 0, 2, 64);
    const int query = program.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 1, 1);
    const int block =
        program.buffer("block", BufferKind::key_value, BufferRole::workspace, Dtype::bf16, 2 * documents, 1);
    const int state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, 1, 1);
    Exchange exchange;
    for (std::int64_t d = 0; d < documents; ++d) exchange.receives.push_back({{block, 2 * d, 1, 0, 1}, 1});
    program.add(std::move(exchange));
    program.add(Attend{
        program.all(query), program.all(block), program.all(state), {{0, 1, 1}}, {{0, 2 * documents, 1}}, false});
    return test::processor_seconds(
        [&] { REQUIRE(cuda::gaps(program.program()).size() == static_cast<std::size_t>(documents)); });
  };
  const double few = seconds(2'000), many = seconds(20'000);
  INFO(few << " s for 2,000, " << many << " s for 20,000");
  CHECK(test::in_proportion(few, many));
}

TEST_CASE("a ring has gaps where a window leaves the middle of a block out, and none under a causal mask") {
  AttentionProblem problem;
  problem.seq_len = 389;
  for (const auto& [mask, expected] : {std::pair{"causal", 0}, std::pair{"causal+window:57+sinks:5", 137 - 5}}) {
    problem.mask = Mask::parse(mask, problem.seq_len);
    const Plan plan = make_plan(problem, Topology::single_node(2), {"contiguous", "ring", true});
    REQUIRE(area(cuda::gaps(plan.program(1, Pass::forward))) == expected);
    REQUIRE(cuda::gaps(plan.program(1, Pass::backward)).empty());  // they are kept, cleared
  }
}
