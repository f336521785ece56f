#include "backend/coverage/rows.hpp"

#include <algorithm>

namespace orrery::coverage {
namespace {

// Sorts ranges and joins those that meet.
void join(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::size_t count = 0;
  for (const Range& range : ranges) {
    if (range.empty()) continue;
    if (count > 0 && range.begin <= ranges[count - 1].end) {
      ranges[count - 1].end = std::max(ranges[count - 1].end, range.end);
    } else {
      ranges[count++] = range;
    }
  }
  ranges.resize(count);
}

// Which keys some queries see, and perhaps keys between them that they do not.
std::vector<Range> reach_of_queries(const Mask& mask, const std::vector<Span>& queries) {
  std::vector<Range> reach;
  for (const Span& span : queries) {
    if (span.count < 1) continue;
    mask.for_each_piece(span.begin, span.last() + 1, [&](const MaskPiece& piece) {
      reach.push_back({piece.keys_begin.at(piece.begin), piece.keys_end.at(piece.end - 1)});
      reach.push_back({piece.sinks_begin.at(piece.begin), piece.sinks_end.at(piece.end - 1)});
    });
  }
  join(reach);
  return reach;
}

std::vector<Range> reach_of(const Mask& mask, const std::vector<Span>& own, bool own_are_keys) {
  if (!own_are_keys) return reach_of_queries(mask, own);
  // Who sees each of many keys that lie apart takes long to say, and such keys reach nearly everywhere. And a claim may
  // be no list of positions that rise within the sequence.
  std::int64_t end = 0;
  for (const Span& span : own) {
    const bool apart = span.stride > 1 && span.count > 1;
    if (apart || span.begin < end || span.last() >= mask.seq_len()) return {{0, mask.seq_len()}};
    end = span.last() + 1;
  }
  return positions_seeing(mask, own);
}

}  // namespace

Rows::Rows(std::span<const Span> spans) {
  for (const Span& span : spans) {
    rise_ = rise_ && (span.count < 1 || index_.takes(span));
    index_.add(span);
  }
}

std::vector<Span> Rows::at(std::span<const Range> rows) const {
  std::vector<Span> spans;
  for (const Range& range : rows) index_.append_positions(range, spans);
  return spans;
}

std::vector<Range> Rows::within(std::span<const Range> positions) const {
  if (!rise_) return {{0, count()}};
  std::vector<Range> rows;
  for (const Range& range : positions) {
    const Range found = index_.rows_in(range);
    if (!found.empty()) rows.push_back(found);
  }
  return rows;
}

Meeting::Meeting(const Mask& mask, std::vector<Span> own, bool own_are_keys)
    : mask_(mask), own_(std::move(own)), own_are_keys_(own_are_keys), reach_(reach_of(mask, own_, own_are_keys)) {}

std::int64_t Meeting::pairs(std::span<const Span> others) const {
  return own_are_keys_ ? orrery::pairs(mask_, others, own_) : orrery::pairs(mask_, own_, others);
}

std::int64_t Meeting::pairs_with_all() const {
  std::vector<Span> others;
  others.reserve(reach_.size());
  for (const Range& range : reach_) others.push_back({range.begin, range.size(), 1});
  return pairs(others);
}

std::vector<Range> intersection(std::span<const Range> a, std::span<const Range> b) {
  if (a.size() > b.size()) std::swap(a, b);
  std::vector<Range> common;
  auto at = b.begin();
  for (const Range& range : a) {
    at = std::partition_point(at, b.end(), [&](const Range& other) { return other.end <= range.begin; });
    for (auto other = at; other != b.end() && other->begin < range.end; ++other) {
      const Range both{std::max(range.begin, other->begin), std::min(range.end, other->end)};
      if (!both.empty()) common.push_back(both);
    }
  }
  return common;
}

}  // namespace orrery::coverage
