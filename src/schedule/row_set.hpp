// Rows of a buffer as sets: the same heads throughout, and of the tokens disjoint ranges in ascending order. An
// exchange may have a transfer for every document, so whoever compares two steps must not compare all their slices with
// each other. The slices of a step become a few sets; comparing two sets is one walk along both.
#pragma once

#include <span>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

class RowSet {
 public:
  explicit RowSet(const Slice& slice)
      : buffer_(slice.buffer),
        head_begin_(slice.head_begin),
        heads_(slice.heads),
        hull_{slice.token_begin, slice.token_begin + slice.tokens} {}
  // The rows of slices[0 .. count), which are of one buffer and the same heads, in ascending order of their tokens.
  explicit RowSet(std::span<const Slice> slices);

  int buffer() const { return buffer_; }
  // Ascending, disjoint, never touching; none is empty, and there is at least one unless the set is empty.
  std::span<const Range> tokens() const;
  bool empty() const { return hull_.empty(); }
  std::int64_t rows() const;  // tokens times heads

  // Takes away the rows of a set that has all these heads, or more; a set of fewer heads takes nothing.
  void subtract(const RowSet& other);

  friend bool overlap(const RowSet& a, const RowSet& b);

 private:
  int buffer_, head_begin_, heads_;
  Range hull_;                // of all tokens
  std::vector<Range> parts_;  // when there is more than one
};

// Slices in any order, as a set for each buffer and range of heads among them. O(n log n), O(n) when they ascend.
std::vector<RowSet> row_sets(std::vector<Slice> slices);

}  // namespace orrery
