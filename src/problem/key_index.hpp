// A key list prepared for questions by position. Lists of one or a few spans are simply walked. Longer lists are sorted
// by position and their lengths summed up, so that the spans which a boundary leaves whole or untouched cost nothing:
// with thousands of documents or stripes, only the few spans that a boundary cuts are looked at. Spans that interleave
// (striped shards, concatenated) have no such order and are walked too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "orrery/mask.hpp"
#include "progression.hpp"

namespace orrery {

// std::partition_point for questions that mostly come in order: the search begins at the last answer, `hint`, and costs
// little where the next one is near.
template <typename Items, typename InFront>
std::size_t partition_point_from(const Items& items, std::size_t& hint, const InFront& in_front) {
  std::size_t low = 0, high = items.size();
  if (hint > 0 && !in_front(items[hint - 1])) {
    high = hint - 1;
  } else {
    low = hint;
    for (std::size_t step = 1; low + step < high; step *= 2) {
      if (!in_front(items[low + step - 1])) {
        high = low + step - 1;
        break;
      }
      low += step;
    }
  }
  const auto begin = items.begin();
  hint = static_cast<std::size_t>(std::partition_point(begin + static_cast<std::ptrdiff_t>(low),
                                                       begin + static_cast<std::ptrdiff_t>(high), in_front) -
                                  begin);
  return hint;
}

class KeyIndex {
 public:
  // `keys` must outlive the index. Its spans may come in any order and may be empty.
  explicit KeyIndex(std::span<const Span> keys);
  KeyIndex(const KeyIndex&) = delete;
  KeyIndex& operator=(const KeyIndex&) = delete;

  // The sum over the positions q of `queries` of the number of keys in front of boundary.at(q).
  Wide count_before(Boundary boundary, const Span& queries) const;

  // Every non-empty span that reaches into the positions [range), some of whose tokens may lie in it.
  template <typename Visit>
  void visit_reaching(Range range, const Visit& visit) const {
    for (std::size_t s = ordered_ ? first_ending_at_or_after(range.begin) : 0; s < keys_.size(); ++s) {
      const Span& span = keys_[s];
      if (span.begin >= range.end) {
        if (ordered_) return;
      } else if (span.count > 0 && span.last() >= range.begin) {
        visit(span);
      }
    }
  }

 private:
  std::size_t first_ending_at_or_after(std::int64_t position) const;

  std::span<const Span> keys_;
  std::vector<Span> sorted_;
  std::vector<std::int64_t> before_;  // before_[s]: tokens in the spans in front of s; only when ordered
  bool ordered_ = false;
  mutable std::size_t hint_ = 0;
};

// The pieces of a mask that spans of queries meet, one span after another.
class PieceWalk {
 public:
  explicit PieceWalk(const Mask& mask) : pieces_(mask.pieces()) {}

  // A span meets each piece in one run of its indices: visit(piece, run), in order, none empty; the piece is clipped to
  // the span.
  template <typename Visit>
  void visit_runs(const Span& queries, const Visit& visit) {
    if (queries.count <= 0) return;
    const std::int64_t end = queries.last() + 1;
    const auto in_front = [&](const MaskPiece& piece) { return piece.end <= queries.begin; };
    for (std::size_t i = partition_point_from(pieces_, hint_, in_front); i < pieces_.size(); ++i) {
      MaskPiece piece = pieces_[i];
      if (piece.begin >= end) return;
      piece.begin = std::max(piece.begin, queries.begin);
      piece.end = std::min(piece.end, end);
      const Range run{ceil_div(piece.begin - queries.begin, queries.stride),
                      ceil_div(piece.end - queries.begin, queries.stride)};
      if (!run.empty()) visit(piece, run);
    }
  }

 private:
  std::span<const MaskPiece> pieces_;
  std::size_t hint_ = 0;
};

// One of the two intervals that a piece shows its queries.
struct Interval {
  Boundary begin, end;

  // From the first key that the first query sees to the last key that the last query sees.
  Range hull(std::int64_t first_query, std::int64_t last_query) const {
    return {begin.at(first_query), end.at(last_query)};
  }
};

// visit(Interval) for the intervals of a piece that are not empty.
template <typename Visit>
void visit_intervals(const MaskPiece& piece, const Visit& visit) {
  if (piece.sinks_begin.at(piece.begin) < piece.sinks_end.at(piece.begin)) {
    visit(Interval{piece.sinks_begin, piece.sinks_end});
  }
  visit(Interval{piece.keys_begin, piece.keys_end});
}

}  // namespace orrery
