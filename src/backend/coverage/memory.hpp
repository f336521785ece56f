// The memory of the checker. Where a real backend keeps numbers, this one keeps provenance: for every row of every
// buffer, whose row it is and which rows have been folded into it. Neighbouring rows with the same history are one
// cell, so the cost of a proof grows with the number of blocks, not of tokens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "orrery/schedule.hpp"
#include "schedule/row_map.hpp"

namespace orrery::coverage {

// Rows of one rank's shard, by index: disjoint ranges, ascending. Of them, those that a mask of the program admits. All
// rows that a step folds them into share one.
struct Share {
  int rank;
  std::vector<Range> rows;
  int mask = 0;
};

// Row (t, h) of a cell is row t + token_shift of this rank's shard, head h + head_shift.
struct Identity {
  int rank = -1;  // -1: nobody's yet, as after Clear
  std::int64_t token_shift = 0;
  int head_shift = 0;

  bool known() const { return rank >= 0; }
  Range rows(Range tokens) const { return {tokens.begin + token_shift, tokens.end + token_shift}; }
  friend bool operator==(const Identity&, const Identity&) = default;
};

// What a scan state composes: positions that follow each other, and in which direction.
struct Composed {
  Span positions;     // none: the neutral element
  int direction = 0;  // 1 ascending, -1 descending, 0 a single span, as the caller composed it
};

struct Provenance {
  bool written = false;
  Identity identity;
  std::vector<std::shared_ptr<const Share>> shares;  // states and dq: keys folded in; dk, dv: queries folded in
  Composed composed;                                 // scan states
  int writer = -1;                                   // node of the step that wrote it last; -1: the caller
};

using Memory = RowMap<Provenance>;  // of one buffer
using Cell = Memory::Cell;

std::string to_text(const Composed& composed);  // "0 to 8", "8 down to 4", "none"

// The rows of `target` that stand where `cell` stands in `source`.
Slice corresponding(const Slice& target, const Slice& source, const Cell& cell);
// The identity of rows of `source`, seen from where they are in `target`.
Identity shifted(const Identity& identity, const Slice& target, const Slice& source);

}  // namespace orrery::coverage
