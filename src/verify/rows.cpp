#include "verify/rows.hpp"

#include <algorithm>
#include <array>

namespace orrery {
namespace {

void append(std::vector<Range>& ranges, Range range) {
  if (range.empty()) return;
  if (!ranges.empty() && ranges.back().end == range.begin) {
    ranges.back().end = range.end;
  } else {
    ranges.push_back(range);
  }
}

// The rows whose positions lie in `positions`.
void append_rows(std::vector<Range>& rows, Range positions, std::span<const Span> spans) {
  if (positions.empty()) return;
  std::int64_t first = 0;  // row of the span's first token
  for (const Span& s : spans) {
    const auto before = [&](std::int64_t position) {
      if (position <= s.begin) return first;
      return first + std::min((position - s.begin + s.stride - 1) / s.stride, s.count);
    };
    append(rows, {before(positions.begin), before(positions.end)});
    first += s.count;
  }
}

// The positions i of [begin, end) with low.at(i) <= key < high.at(i).
Range between(Range positions, const Boundary& low, const Boundary& high, std::int64_t key) {
  if (low.slope == 1) {
    positions.end = std::min(positions.end, key - low.offset + 1);
  } else if (low.offset > key) {
    return {};
  }
  if (high.slope == 1) {
    positions.begin = std::max(positions.begin, key - high.offset + 1);
  } else if (high.offset <= key) {
    return {};
  }
  return positions;
}

}  // namespace

std::vector<Range> rows_seen(const Mask& mask, std::int64_t query_position, std::span<const Span> spans) {
  std::vector<Range> rows;
  const VisibleKeys visible = mask.visible(query_position);
  append_rows(rows, visible.sinks, spans);
  append_rows(rows, visible.keys, spans);
  return rows;
}

std::vector<Range> rows_seeing(const Mask& mask, std::int64_t key_position, std::span<const Span> spans) {
  // Only queries of the key's document see it.
  const auto bounds = mask.document_bounds();
  const auto end = std::upper_bound(bounds.begin(), bounds.end(), key_position);
  std::vector<Range> positions;
  mask.for_each_piece(*(end - 1), *end, [&](const MaskPiece& piece) {
    const Range at = {piece.begin, piece.end};
    // Keys and sinks are disjoint, and so are the queries that see the key as the one and as the other.
    std::array seen = {between(at, piece.keys_begin, piece.keys_end, key_position),
                       between(at, piece.sinks_begin, piece.sinks_end, key_position)};
    if (seen[1].begin < seen[0].begin) std::swap(seen[0], seen[1]);
    for (const Range& range : seen) append(positions, range);
  });
  std::vector<Range> rows;
  for (const Range& range : positions) append_rows(rows, range, spans);
  return rows;
}

}  // namespace orrery
