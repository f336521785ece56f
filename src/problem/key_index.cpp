#include "key_index.hpp"

#include <iterator>

#include "problem/row_index.hpp"

namespace orrery {
namespace {

// Below this many spans an index costs more than it saves.
constexpr std::size_t kFewSpans = 8;

bool in_order(const Span& a, const Span& b) {
  return a.last() < b.begin;
}

// The sum over the queries q of the number of tokens of `keys` below q + offset. Up to one query the number is 0, from
// another on it is keys.count, and in between it grows by the floor of a line.
Wide tokens_below_rising(const Span& keys, std::int64_t offset, const Span& queries) {
  const std::int64_t ahead = queries.begin + offset - keys.begin;  // boundary of the first query, from the first key
  const auto first_beyond = [&](std::int64_t distance) {
    return std::clamp(floor_div(distance - ahead, queries.stride) + 1, std::int64_t{0}, queries.count);
  };
  const std::int64_t some = first_beyond(0), all = first_beyond((keys.count - 1) * keys.stride);
  const std::int64_t start = ahead + queries.stride * some + keys.stride - 1;
  return floor_sum(all - some, queries.stride, start, keys.stride) + Wide{queries.count - all} * keys.count;
}

}  // namespace

KeyIndex::KeyIndex(std::span<const Span> keys) : keys_(keys) {
  if (keys.size() <= kFewSpans) return;
  const auto empty = [](const Span& span) { return span.count <= 0; };
  const auto out_of_order = [](const Span& a, const Span& b) { return !in_order(a, b); };
  const auto is_ordered = [&] { return std::adjacent_find(keys_.begin(), keys_.end(), out_of_order) == keys_.end(); };
  if (std::any_of(keys.begin(), keys.end(), empty) || !is_ordered()) {
    std::remove_copy_if(keys.begin(), keys.end(), std::back_inserter(sorted_), empty);
    std::sort(sorted_.begin(), sorted_.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    keys_ = sorted_;
  }
  ordered_ = is_ordered();
  if (!ordered_) return;
  before_.reserve(keys_.size() + 1);
  before_.push_back(0);
  for (const Span& span : keys_) before_.push_back(before_.back() + span.count);
}

std::size_t KeyIndex::first_ending_at_or_after(std::int64_t position) const {
  return partition_point_from(keys_, hint_, [&](const Span& span) { return span.last() < position; });
}

Wide KeyIndex::count_before(Boundary boundary, const Span& queries) const {
  const std::int64_t low = boundary.at(queries.begin), high = boundary.at(queries.last());
  Wide count = 0;
  std::size_t s = 0;
  if (ordered_) {
    s = first_ending_at_or_after(low);
    count = Wide{queries.count} * before_[s];
  }
  for (; s < keys_.size(); ++s) {
    const Span& span = keys_[s];
    if (span.count <= 0) continue;
    if (span.begin >= high) {
      if (ordered_) break;
    } else if (boundary.slope == 0 || span.last() < low) {
      count += Wide{queries.count} * tokens_before(span, low);
    } else {
      count += tokens_below_rising(span, boundary.offset, queries);
    }
  }
  return count;
}

}  // namespace orrery
