#include "schedule/builder.hpp"

#include <algorithm>
#include <utility>

#include "orrery/error.hpp"

namespace orrery {

ProgramBuilder::ProgramBuilder(Pass pass, int rank, int world_size, std::int64_t width, int lanes) : width_(width) {
  program_.pass = pass;
  program_.rank = rank;
  program_.world_size = world_size;
  program_.lanes = lanes;
}

int ProgramBuilder::buffer(std::string name, BufferKind kind, BufferRole role, Dtype dtype, std::int64_t tokens,
                           int heads, RowOrder order, Scan scan) {
  return buffer({std::move(name), kind, role, dtype, tokens, heads, width_, order, scan, RowSpace::sequence});
}

int ProgramBuilder::buffer(Buffer buffer) {
  ORRERY_CHECK(program_.find(buffer.name) < 0, "two buffers are called ", buffer.name);
  program_.buffers.push_back(std::move(buffer));
  return static_cast<int>(program_.buffers.size()) - 1;
}

Slice ProgramBuilder::all(int buffer) const {
  ORRERY_CHECK(buffer >= 0 && buffer < static_cast<int>(program_.buffers.size()), to_string(program_.pass), " of rank ",
               program_.rank, ": no buffer ", buffer, " was made");
  const Buffer& b = program_.buffers.at(static_cast<std::size_t>(buffer));
  return {buffer, 0, b.tokens, 0, b.heads};
}

Slice ProgramBuilder::tokens(int buffer, Range range) const {
  Slice slice = all(buffer);
  slice.token_begin = range.begin;
  slice.tokens = range.size();
  return slice;
}

Slice ProgramBuilder::heads(Slice slice, int head_begin, int heads) {
  slice.head_begin = head_begin;
  slice.heads = heads;
  return slice;
}

void ProgramBuilder::add(Step step) {
  if (auto* exchange = std::get_if<Exchange>(&step)) {
    const auto empty = [](const Transfer& t) { return t.slice.tokens == 0 || t.slice.heads == 0; };
    std::erase_if(exchange->sends, empty);
    std::erase_if(exchange->receives, empty);
    if (exchange->sends.empty() && exchange->receives.empty()) return;
  } else {
    bool empty = false;
    for_each_access(step, [&](const Access& a) { empty = empty || a.slice.tokens == 0 || a.slice.heads == 0; });
    if (empty) return;
  }
  program_.steps.push_back(std::move(step));
}

void ProgramBuilder::apply(Operation operation, std::initializer_list<Slice> operands) {
  ORRERY_CHECK(operands.size() <= kMostOperands, operands.size(), " operands of ", to_string(operation));
  Apply apply{operation};
  std::copy(operands.begin(), operands.end(), apply.operands);
  const auto rows = row_of(operation).operands();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ORRERY_CHECK(rows[i].optional || apply.operands[i].given(), to_string(operation), " without its operand `",
                 rows[i].name, "`");
  }
  add(apply);
}

int ProgramBuilder::mask(Mask mask) {
  program_.masks.push_back(std::move(mask));
  return static_cast<int>(program_.masks.size());
}

}  // namespace orrery
