// Ports follow from the buffers of programs alone, so that a method with other tensors names them by its buffers.
#include "orrery/ports.hpp"

#include "orrery/error.hpp"
#include "schedule/builder.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

Port port(const std::vector<Port>& all, std::string_view name) {
  for (const Port& one : all) {
    if (one.name == name) return one;
  }
  FAIL("no port " << name);
  return {};
}

}  // namespace

TEST_CASE("a port has its component's name and the ending of its buffer's; a buffer of another name gives its whole") {
  AttentionProblem problem;
  problem.batch = 3;
  ProgramBuilder forward(Pass::forward, 0, 1, 64), backward(Pass::backward, 0, 1, 64);
  const auto buffer = [](ProgramBuilder& p, const char* name, BufferKind kind, BufferRole role, std::int64_t tokens) {
    p.buffer(name, kind, role, Dtype::bf16, tokens, 2);
  };
  buffer(forward, "query", BufferKind::query, BufferRole::input, 8);
  buffer(forward, "query_global", BufferKind::query, BufferRole::input, 4);
  buffer(forward, "key_value_memory", BufferKind::key_value, BufferRole::input, 16);
  buffer(forward, "output", BufferKind::output, BufferRole::output, 8);
  buffer(forward, "total", BufferKind::scan, BufferRole::output, 1);
  buffer(forward, "state", BufferKind::state, BufferRole::workspace, 8);
  buffer(backward, "output", BufferKind::output, BufferRole::input, 8);
  buffer(backward, "grad_output", BufferKind::grad_output, BufferRole::input, 8);
  const RankProgram* programs[] = {&forward.program(), &backward.program()};
  const std::vector<Port> all = ports(problem, programs);
  std::string names;
  for (const Port& one : all) names += one.name + " ";
  REQUIRE(names == "query query_global key_memory value_memory out lse total.matrix total.decay grad_out ");
  REQUIRE((port(all, "key_memory").tokens == 16 && port(all, "key_memory").batch == 3));
  REQUIRE((port(all, "lse").width == 1 && port(all, "lse").dtype == Dtype::fp32));
  REQUIRE(port(all, "total.matrix").width == 64 * 64);
  REQUIRE((port(all, "out").forward == PortUse::output && port(all, "out").backward == PortUse::input));
  REQUIRE((port(all, "query").backward == PortUse::none && !port(all, "query").written()));
}

TEST_CASE("two buffers of one program, or of two shapes, are not one port") {
  ProgramBuilder forward(Pass::forward, 0, 1, 64), backward(Pass::backward, 0, 1, 64);
  forward.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 8, 2);
  backward.buffer("query", BufferKind::query, BufferRole::input, Dtype::bf16, 9, 2);
  const RankProgram* programs[] = {&forward.program(), &backward.program()};
  REQUIRE_THROWS_AS(ports({}, programs), Error);
  const RankProgram* twice[] = {&forward.program(), &forward.program()};
  REQUIRE_THROWS_AS(ports({}, twice), Error);
}
