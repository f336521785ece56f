#include "schedule/row_set.hpp"

#include <algorithm>
#include <tuple>

namespace orrery {
namespace {

auto key(const Slice& s) {
  return std::tuple(s.buffer, s.head_begin, s.heads);
}

bool in_order(const Slice& a, const Slice& b) {
  return std::tuple(key(a), a.token_begin) < std::tuple(key(b), b.token_begin);
}

}  // namespace

RowSet::RowSet(std::span<const Slice> slices) : RowSet(slices.front()) {
  std::vector<Range> parts{hull_};
  for (const Slice& s : slices.subspan(1)) {
    const std::int64_t end = s.token_begin + s.tokens;
    if (s.token_begin <= parts.back().end) {
      parts.back().end = std::max(parts.back().end, end);
    } else {
      parts.push_back({s.token_begin, end});
    }
  }
  hull_.end = parts.back().end;
  if (parts.size() > 1) parts_ = std::move(parts);
}

std::span<const Range> RowSet::tokens() const {
  if (!parts_.empty()) return parts_;
  return {&hull_, hull_.empty() ? std::size_t{0} : std::size_t{1}};
}

std::int64_t RowSet::rows() const {
  std::int64_t tokens_in_all = 0;
  for (const Range& r : tokens()) tokens_in_all += r.size();
  return tokens_in_all * heads_;
}

bool overlap(const RowSet& a, const RowSet& b) {
  const auto meet = [](std::int64_t a_begin, std::int64_t a_end, std::int64_t b_begin, std::int64_t b_end) {
    return std::max(a_begin, b_begin) < std::min(a_end, b_end);
  };
  if (a.buffer_ != b.buffer_ || !meet(a.hull_.begin, a.hull_.end, b.hull_.begin, b.hull_.end) ||
      !meet(a.head_begin_, a.head_begin_ + a.heads_, b.head_begin_, b.head_begin_ + b.heads_)) {
    return false;
  }
  // Along the shorter list, each time on from where the other one stands.
  const bool a_is_shorter = a.tokens().size() < b.tokens().size();
  const auto few = a_is_shorter ? a.tokens() : b.tokens(), many = a_is_shorter ? b.tokens() : a.tokens();
  auto at = many.begin();
  for (const Range& r : few) {
    at = std::partition_point(at, many.end(), [&](const Range& m) { return m.end <= r.begin; });
    if (at == many.end()) return false;
    if (at->begin < r.end) return true;
  }
  return false;
}

void RowSet::subtract(const RowSet& other) {
  const bool all_heads = other.head_begin_ <= head_begin_ && head_begin_ + heads_ <= other.head_begin_ + other.heads_;
  if (!all_heads || !overlap(*this, other)) return;
  std::vector<Range> left;
  auto taken = other.tokens().begin();
  for (Range r : tokens()) {
    taken = std::partition_point(taken, other.tokens().end(), [&](const Range& t) { return t.end <= r.begin; });
    for (auto t = taken; t != other.tokens().end() && t->begin < r.end; ++t) {
      if (r.begin < t->begin) left.push_back({r.begin, t->begin});
      r.begin = t->end;
    }
    if (!r.empty()) left.push_back(r);
  }
  hull_ = left.empty() ? Range{} : Range{left.front().begin, left.back().end};
  if (left.size() < 2) left.clear();
  parts_ = std::move(left);
}

std::vector<RowSet> row_sets(std::vector<Slice> slices) {
  if (!std::is_sorted(slices.begin(), slices.end(), in_order)) std::sort(slices.begin(), slices.end(), in_order);
  std::vector<RowSet> sets;
  for (auto begin = slices.begin(); begin != slices.end();) {
    const auto end = std::find_if(begin, slices.end(), [&](const Slice& s) { return key(s) != key(*begin); });
    sets.emplace_back(std::span<const Slice>(begin, end));
    begin = end;
  }
  return sets;
}

}  // namespace orrery
