// The builder: how strategies, and programs written by hand, put a RankProgram together. It names buffers, cuts slices
// and leaves out what is empty; it decides nothing.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

class ProgramBuilder {
 public:
  ProgramBuilder(Pass pass, int rank, int world_size, std::int64_t width, int lanes = 1);

  // Their rows have the width with which the builder was made; of attention: head_dim.
  int buffer(std::string name, BufferKind kind, BufferRole role, Dtype dtype, std::int64_t tokens, int heads,
             RowOrder order = RowOrder::by_head, Scan scan = Scan::own);
  int buffer(Buffer buffer);  // any

  // Slices: a whole buffer, a range of tokens, and either of these for a range of heads.
  Slice all(int buffer) const;
  Slice tokens(int buffer, Range range) const;
  static Slice heads(Slice slice, int head_begin, int heads);

  // Appends a step. An exchange without transfers, and a step whose slices are empty, are left out.
  void add(Step step);
  // `operands` in the order of the operation's row.
  void apply(Operation operation, std::initializer_list<Slice> operands);
  // Another mask beside the problem's; the index by which attends name it.
  int mask(Mask mask);

  RankProgram finish() && { return std::move(program_); }
  const RankProgram& program() const { return program_; }

 private:
  RankProgram program_;
  std::int64_t width_;
};

}  // namespace orrery
