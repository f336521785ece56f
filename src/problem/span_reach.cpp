// Which keys a list of queries reaches, and which queries reach a list of keys: what decides what is sent and what is
// skipped. A schedule asks thousands of times while it is planned, so lists of a few spans are answered without
// allocating anything but the answer.
#include <array>

#include "key_index.hpp"
#include "problem/row_index.hpp"

namespace orrery {
namespace {

// Position ranges in the order in which they are found; the first ones on the stack.
class RangeList {
 public:
  void add(Range range) {
    Range* const last = size_ == 0 ? nullptr : size_ <= kFew ? &few_[size_ - 1] : &many_.back();
    if (last != nullptr && range.begin <= last->end && range.begin >= last->begin) {
      last->end = std::max(last->end, range.end);
      return;
    }
    if (size_ < kFew) {
      few_[size_] = range;
    } else {
      if (size_ == kFew) many_.assign(few_.begin(), few_.end());
      many_.push_back(range);
    }
    ++size_;
  }

  // Sorted, disjoint, with a gap between neighbours. The list is not added to afterwards.
  std::span<const Range> joined() {
    const std::span<Range> all = size_ <= kFew ? std::span<Range>(few_.data(), size_) : std::span<Range>(many_);
    const auto before = [](const Range& a, const Range& b) { return a.begin < b.begin; };
    if (!std::is_sorted(all.begin(), all.end(), before)) std::sort(all.begin(), all.end(), before);
    std::size_t count = 0;
    for (const Range& range : all) {
      if (count > 0 && range.begin <= all[count - 1].end) {
        all[count - 1].end = std::max(all[count - 1].end, range.end);
      } else {
        all[count++] = range;
      }
    }
    return all.first(count);
  }

 private:
  static constexpr std::size_t kFew = 24;
  std::array<Range, kFew> few_;
  std::vector<Range> many_;
  std::size_t size_ = 0;
};

void extend(Range& hull, Range added) {
  if (added.empty()) return;
  hull = hull.empty() ? added : Range{std::min(hull.begin, added.begin), std::max(hull.end, added.end)};
}

// The smallest index range of `queries` outside of which nobody sees any of `keys` through the interval; {0, 0} if
// nobody.
Range seeing(const Interval& interval, const Span& queries, const Span& keys) {
  const auto first_above = [&](const Boundary& boundary, std::int64_t position) {
    if (boundary.slope == 0) return boundary.offset > position ? std::int64_t{0} : queries.count;
    const std::int64_t distance = position - boundary.offset - queries.begin;
    return std::clamp(floor_div(distance, queries.stride) + 1, std::int64_t{0}, queries.count);
  };
  // The interval must end above the first key that a fixed begin leaves, and begin at or below the last key that a
  // fixed end leaves.
  std::int64_t first_key = keys.begin, last_key = keys.last();
  if (interval.begin.slope == 0 && interval.begin.offset > first_key) {
    first_key = keys.at(ceil_div(interval.begin.offset - keys.begin, keys.stride));
  }
  if (interval.end.slope == 0 && interval.end.offset <= last_key) {
    last_key = keys.at(floor_div(interval.end.offset - 1 - keys.begin, keys.stride));
  }
  if (first_key > last_key) return {};
  Range reach{first_above(interval.end, first_key), first_above(interval.begin, last_key)};
  if (reach.empty()) return {};
  const std::int64_t width = interval.end.offset - interval.begin.offset;
  if (interval.begin.slope == 0 || interval.end.slope == 0 || width >= keys.stride) return reach;

  // A moving window narrower than the stride of the keys can fall between two of them: it holds one just when the
  // distance from its begin to the next key, modulo the stride, is below its width.
  const auto misses_until = [&](std::int64_t index, std::int64_t step) {
    const std::int64_t distance = modulo(keys.begin - interval.begin.at(queries.at(index)), keys.stride);
    if (distance < width) return std::int64_t{0};
    const std::int64_t low = keys.stride - distance;
    return first_residue(modulo(-step * queries.stride, keys.stride), keys.stride, low, low + width - 1);
  };
  const std::int64_t skipped = misses_until(reach.begin, 1);
  if (skipped < 0 || skipped >= reach.size()) return {};
  return {reach.begin + skipped, reach.end - misses_until(reach.end - 1, -1)};
}

// The same for one span of queries and all of the keys.
Range seeing(PieceWalk& pieces, const Span& queries, const KeyIndex& keys) {
  Range seen;
  pieces.visit_runs(queries, [&](const MaskPiece& piece, Range run) {
    const Span run_queries{queries.at(run.begin), run.size(), queries.stride};
    visit_intervals(piece, [&](const Interval& interval) {
      keys.visit_reaching(interval.hull(run_queries.begin, run_queries.last()), [&](const Span& key_span) {
        const Range found = seeing(interval, run_queries, key_span);
        extend(seen, {run.begin + found.begin, run.begin + found.end});
      });
    });
  });
  return seen;
}

}  // namespace

std::vector<Range> keys_seen(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  RangeList positions;
  PieceWalk pieces(mask);
  for (const Span& span : queries) {
    pieces.visit_runs(span, [&](const MaskPiece& piece, Range run) {
      visit_intervals(piece, [&](const Interval& interval) {
        positions.add(interval.hull(span.at(run.begin), span.at(run.end - 1)));
      });
    });
  }
  const std::span<const Range> seen = positions.joined();
  std::vector<Range> indices;
  std::int64_t first = 0;  // index of the span's first token in the list
  std::size_t hint = 0;
  for (const Span& span : keys) {
    if (span.count <= 0) continue;
    const auto in_front = [&](const Range& r) { return r.end <= span.begin; };
    for (auto range = seen.begin() + static_cast<std::ptrdiff_t>(partition_point_from(seen, hint, in_front));
         range != seen.end() && range->begin <= span.last(); ++range) {
      const auto index_of = [&](std::int64_t position) { return first + tokens_before(span, position); };
      const Range found{index_of(range->begin), index_of(range->end)};
      if (found.empty()) continue;
      if (!indices.empty() && indices.back().end == found.begin) {
        indices.back().end = found.end;
      } else {
        indices.push_back(found);
      }
    }
    first += span.count;
  }
  return indices;
}

std::vector<Range> positions_seeing(const Mask& mask, std::span<const Span> keys) {
  RangeList positions;
  PieceWalk pieces(mask);
  const std::span<const std::int64_t> bounds = mask.document_bounds();
  std::size_t document_hint = 0;
  for (const Span& span : keys) {
    if (span.count <= 0) continue;
    // Who sees a key is of its document.
    const auto begins_before = [&](std::int64_t bound) { return bound <= span.begin; };
    const std::size_t first = partition_point_from(bounds, document_hint, begins_before) - 1;
    const std::int64_t end =
        *std::upper_bound(bounds.begin() + static_cast<std::ptrdiff_t>(first), bounds.end(), span.last());
    pieces.visit_runs({bounds[first], end - bounds[first], 1}, [&](const MaskPiece& piece, Range) {
      const Span queries{piece.begin, piece.end - piece.begin, 1};
      const auto add = [&](const Interval& interval, const Span& some) {
        const Range found = seeing(interval, queries, some);
        if (!found.empty()) positions.add({piece.begin + found.begin, piece.begin + found.end});
      };
      visit_intervals(piece, [&](const Interval& interval) {
        const bool moves = interval.begin.slope == 1 && interval.end.slope == 1;
        if (!moves || interval.end.offset - interval.begin.offset >= span.stride) return add(interval, span);
        const Range reached = interval.hull(queries.begin, queries.last());
        const std::int64_t last = std::min(span.count, ceil_div(reached.end - span.begin, span.stride));
        for (std::int64_t key = std::max<std::int64_t>(ceil_div(reached.begin - span.begin, span.stride), 0);
             key < last; ++key) {
          add(interval, {span.at(key), 1, 1});
        }
      });
    });
  }
  const std::span<const Range> joined = positions.joined();
  return {joined.begin(), joined.end()};
}

Range queries_seeing(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  const KeyIndex index(keys);
  PieceWalk pieces(mask);
  Range seen;
  std::int64_t first = 0;
  std::size_t s = 0;
  for (; s < queries.size() && seen.empty(); ++s) {
    const Range found = seeing(pieces, queries[s], index);
    extend(seen, {first + found.begin, first + found.end});
    first += queries[s].count;
  }
  if (seen.empty()) return {};
  // From the other end, until a span sees anything or the first one that did is met again.
  std::int64_t end = token_count(queries);
  for (std::size_t last = queries.size(); last > s; --last) {
    end -= queries[last - 1].count;
    const Range found = seeing(pieces, queries[last - 1], index);
    if (!found.empty()) return {seen.begin, end + found.end};
  }
  return seen;
}

}  // namespace orrery
