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

std::vector<Range> rows_seen(const Mask& mask, std::int64_t query_position, const RowIndex& shard) {
  std::vector<Range> rows;
  const VisibleKeys visible = mask.visible(query_position);
  append(rows, shard.rows_in(visible.sinks));
  append(rows, shard.rows_in(visible.keys));
  return rows;
}

std::vector<Range> rows_seeing(const Mask& mask, std::int64_t key_position, const RowIndex& shard) {
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
  for (const Range& range : positions) append(rows, shard.rows_in(range));
  return rows;
}

}  // namespace orrery
