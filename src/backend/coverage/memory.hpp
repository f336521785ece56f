// The memory of the checker. Where a real backend keeps numbers, this one keeps provenance: for every row of every
// buffer, whose row it is and which rows have been folded into it. Neighbouring rows with the same history are one
// cell, so the cost of a proof grows with the number of blocks, not of tokens.
#pragma once

#include <string>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery::coverage {

// Rows of one rank's shard, by index.
struct Share {
  int rank;
  Range rows;
};

// Row (t, h) of a cell is row t + token_shift of this rank's shard, head h + head_shift.
struct Identity {
  int rank = -1;  // -1: nobody's yet, as after Clear
  std::int64_t token_shift = 0;
  int head_shift = 0;

  bool known() const { return rank >= 0; }
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
  std::vector<Share> shares;  // states and dq: keys folded in; dk, dv: queries folded in
  Composed composed;          // scan states
  int writer = -1;            // node of the step that wrote it last; -1: the caller
};

struct Cell {
  std::int64_t token_begin, token_end;
  int head_begin, head_end;
  Provenance value;

  Range tokens() const { return {token_begin, token_end}; }
};

std::string to_text(const Composed& composed);  // "0 to 8", "8 down to 4", "none"

// One buffer's rows. Cells are disjoint and cover the buffer.
class Memory {
 public:
  Memory(std::int64_t tokens, int heads);

  const std::vector<Cell>& cells() const { return cells_; }

  // The parts of cells that lie in the slice.
  std::vector<Cell> read(const Slice& slice) const;
  // Cuts cells at the slice's edges and calls update(cell) on those inside, by reference.
  template <typename Update>
  void update(const Slice& slice, const Update& update) {
    cut(slice);
    for (Cell& cell : cells_) {
      if (inside(cell, slice)) update(cell);
    }
  }
  // Replaces the slice by one cell.
  void write(const Slice& slice, Provenance value);

 private:
  static bool inside(const Cell& cell, const Slice& slice);
  void cut(const Slice& slice);

  std::vector<Cell> cells_;
};

}  // namespace orrery::coverage
