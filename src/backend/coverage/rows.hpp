// Rows at positions. A shard of a sequence in thousands of documents is a list of thousands of spans, and so is what a
// step claims of its rows. A part of it is found by search, by its rows or by its positions. And few rows are paired
// with many by looking only at those of the many that the mask lets them meet.
#pragma once

#include <span>
#include <vector>

#include "orrery/mask.hpp"
#include "problem/row_index.hpp"

namespace orrery::coverage {

class Rows {
 public:
  explicit Rows(std::span<const Span> spans);

  std::int64_t count() const { return index_.rows(); }
  const std::vector<Span>& spans() const { return index_.spans(); }
  // The positions of rows [range); those of them that there are.
  std::vector<Span> at(Range rows) const { return at(std::span<const Range>(&rows, 1)); }
  std::vector<Span> at(std::span<const Range> rows) const;
  // The rows at any of these positions, ascending, as the ranges of positions are; all rows, where they do not rise.
  std::vector<Range> within(std::span<const Range> positions) const;

 private:
  RowIndex index_;
  bool rise_ = true;  // the positions, along the rows
};

// Rows of one side, queries or keys, and the positions of the other side that the mask may let them meet.
class Meeting {
 public:
  Meeting(const Mask& mask, std::vector<Span> own, bool own_are_keys);

  const std::vector<Span>& own() const { return own_; }
  std::span<const Range> reach() const { return reach_; }
  // The pairs that the mask admits between its rows and others, which are disjoint where they are keys.
  std::int64_t pairs_with(const Rows& others) const { return pairs(others.at(others.within(reach_))); }
  std::int64_t pairs(std::span<const Span> others) const;
  std::int64_t pairs_with_all() const;  // of the sequence

 private:
  const Mask& mask_;
  std::vector<Span> own_;
  bool own_are_keys_;
  std::vector<Range> reach_;  // ascending and disjoint
};

// What two lists have in common; both ascending and disjoint.
std::vector<Range> intersection(std::span<const Range> a, std::span<const Range> b);

}  // namespace orrery::coverage
