// From positions to rows, and back. Along the shard of a rank, and along a run of keys, positions rise with the rows;
// so the positions in front of a given one are the first rows, and an interval of positions is an interval of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "orrery/mask.hpp"
#include "problem/progression.hpp"

namespace orrery {

// How many tokens of a span lie in front of a position.
inline std::int64_t tokens_before(const Span& span, std::int64_t position) {
  return std::clamp(ceil_div(position - span.begin, span.stride), std::int64_t{0}, span.count);
}

class RowIndex {
 public:
  RowIndex() = default;
  explicit RowIndex(std::span<const Span> spans) {
    for (const Span& span : spans) add(span);
  }

  // Whether positions still rise when this span follows.
  bool takes(const Span& span) const { return spans_.empty() || spans_.back().last() < span.begin; }
  // Its rows follow those that are there. It takes() the span, or the span is empty.
  void add(const Span& span);

  std::int64_t rows() const { return rows_; }
  const std::vector<Span>& spans() const { return spans_; }  // none empty

  // How many rows have positions in front of this one.
  std::int64_t rows_before(std::int64_t position) const;
  Range rows_in(Range positions) const { return {rows_before(positions.begin), rows_before(positions.end)}; }
  // Appends the positions of those rows of a range that there are. This needs no positions that rise.
  void append_positions(Range rows, std::vector<Span>& into) const;

 private:
  std::vector<Span> spans_;
  std::vector<std::int64_t> first_row_;  // of each span
  std::int64_t rows_ = 0;
};

}  // namespace orrery
