// What the table of operations says is what validation, text and the order of steps hold to.
#include "orrery/operations.hpp"

#include <set>

#include "orrery/error.hpp"
#include "schedule/builder.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

BufferKind some_kind(const OperandRow& operand) {
  int kind = 0;
  while (!operand.kinds.has(static_cast<BufferKind>(kind))) ++kind;
  return static_cast<BufferKind>(kind);
}

// One step of an operation, each operand in a buffer of its own.
RankProgram program_of(const OperationRow& row) {
  ProgramBuilder p(Pass::forward, 0, 1, 8);
  Apply step{row.operation};
  for (std::size_t i = 0; i < row.operands().size(); ++i) {
    const OperandRow& operand = row.operands()[i];
    step.operands[i] =
        p.all(p.buffer(std::string(operand.name), some_kind(operand), BufferRole::workspace, Dtype::fp32, 6, 2));
  }
  p.add(step);
  return std::move(p).finish();
}

std::string fault(const RankProgram& program) {
  AttentionProblem problem;
  problem.seq_len = 6;
  problem.mask = Mask::full(6);
  try {
    validate(program, problem);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("names of kinds, components of a kind, operations and operands of an operation are unique") {
  std::set<std::string_view> kinds, operations;
  for (const KindRow& row : kKinds) {
    REQUIRE(kinds.insert(row.name).second);
    std::set<std::string_view> names;
    for (const ComponentRow& component : row.components()) REQUIRE(names.insert(component.name).second);
    REQUIRE_FALSE(names.empty());
  }
  for (const OperationRow& row : kOperations) {
    REQUIRE(operations.insert(row.name).second);
    std::set<std::string_view> names;
    for (const OperandRow& operand : row.operands()) REQUIRE(names.insert(operand.name).second);
    REQUIRE_FALSE(names.empty());
  }
}

TEST_CASE("a step of every operation is valid, prints all its operands, and touches them as its row says") {
  for (const OperationRow& row : kOperations) {
    const RankProgram program = program_of(row);
    INFO(row.name);
    REQUIRE(fault(program) == "");
    const std::string text = to_text(program, 0);
    REQUIRE(text.find(row.name) == 0);
    std::vector<AccessMode> modes;
    for_each_access(program.steps[0], [&](const Access& access) { modes.push_back(access.mode); });
    REQUIRE(modes.size() == row.operands().size());
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      REQUIRE(modes[i] == mode_of(row.operands()[i].use));
      REQUIRE(text.find(std::string(row.operands()[i].name) + "[0:6]") != std::string::npos);
      REQUIRE(&std::get<Apply>(program.steps[0]).at(row.operands()[i].name) ==
              &std::get<Apply>(program.steps[0]).operands[i]);
    }
  }
}

TEST_CASE("an operand that is missing, too many, of the wrong kind, dtype, shape or place is refused, by every row") {
  for (const OperationRow& row : kOperations) {
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      const OperandRow& operand = row.operands()[i];
      INFO(row.name << " " << operand.name);
      const auto damaged = [&](const auto& damage) {
        RankProgram program = program_of(row);
        Slice& slice = std::get<Apply>(program.steps[0]).operands[i];
        damage(program, slice);
        return fault(program);
      };
      const auto buffer = [](RankProgram& program, const Slice& slice) -> Buffer& {
        return program.buffers[static_cast<std::size_t>(slice.buffer)];
      };
      REQUIRE(damaged([](RankProgram&, Slice& slice) { slice = {}; }).empty() == operand.optional);
      REQUIRE_FALSE(damaged([](RankProgram&, Slice& slice) { slice.tokens += 1; }).empty());
      const bool one_of_one = row.operands().size() == 1;
      REQUIRE(damaged([](RankProgram&, Slice& slice) { slice.tokens -= 1; }).empty() == one_of_one);
      REQUIRE(damaged([](RankProgram&, Slice& slice) { slice.heads -= 1; }).empty() == one_of_one);
      const bool any_kind = operand.kinds == Kinds::any() && one_of_one;
      const auto other_kind = [&](RankProgram& program, Slice& slice) {
        Buffer& b = buffer(program, slice);
        b.kind = b.kind == BufferKind::scan ? BufferKind::query : BufferKind::scan;
      };
      REQUIRE(damaged(other_kind).empty() == any_kind);
      const auto narrow = [&](RankProgram& program, Slice& slice) { buffer(program, slice).dtype = Dtype::bf16; };
      REQUIRE(damaged(narrow).empty() == !operand.fp32);
      if (operand.use == Use::reads) continue;
      const auto input = [&](RankProgram& program, Slice& slice) { buffer(program, slice).role = BufferRole::input; };
      REQUIRE_THAT(damaged(input), test::ContainsSubstring("writes the input"));
    }
    RankProgram program = program_of(row);
    if (row.operands().size() == kMostOperands) continue;
    auto& step = std::get<Apply>(program.steps[0]);
    step.operands[row.operands().size()] = step.operands[0];
    REQUIRE_THAT(fault(program), test::ContainsSubstring("operands"));
  }
}

TEST_CASE("what is written overlaps no operand that is read") {
  for (Operation operation : {Operation::merge, Operation::add, Operation::compose, Operation::copy}) {
    RankProgram program = program_of(row_of(operation));
    auto& step = std::get<Apply>(program.steps[0]);
    step.operands[1] = step.operands[0];
    REQUIRE_THAT(fault(program), test::ContainsSubstring("overlaps"));
  }
}
