#include "backend/memory/key_runs.hpp"

#include <algorithm>

namespace orrery {

std::int64_t KeyRun::keys_before(std::int64_t position) const {
  const auto after = std::upper_bound(spans.begin(), spans.end(), position,
                                      [](std::int64_t p, const Span& s) { return p <= s.begin; });
  if (after == spans.begin()) return 0;
  const auto index = static_cast<std::size_t>(after - spans.begin()) - 1;
  const Span& s = spans[index];
  const std::int64_t inside = (position - s.begin + s.stride - 1) / s.stride;
  return row_of_span[index] + std::min(inside, s.count);
}

std::vector<KeyRun> key_runs(std::span<const Span> key_spans) {
  std::vector<KeyRun> runs;
  std::int64_t row = 0;
  for (const Span& s : key_spans) {
    if (s.count == 0) continue;
    if (runs.empty() || runs.back().spans.back().last() >= s.begin) {
      runs.emplace_back();
      runs.back().begin = row;
    }
    KeyRun& run = runs.back();
    run.row_of_span.push_back(run.tokens);
    run.spans.push_back(s);
    run.tokens += s.count;
    row += s.count;
  }
  return runs;
}

void fill_key_ranges(const Mask& mask, std::span<const Span> query_spans, const KeyRun& keys,
                     std::span<kernels::KeyRange> ranges) {
  std::size_t row = 0;
  for (const Span& span : query_spans) {
    std::int64_t index = 0;
    mask.for_each_piece(span.begin, span.last() + 1, [&](const MaskPiece& piece) {
      for (; index < span.count && span.at(index) < piece.end; ++index, ++row) {
        const std::int64_t p = span.at(index);
        const auto row_at = [&](const Boundary& b) { return static_cast<std::int32_t>(keys.keys_before(b.at(p))); };
        kernels::KeyRange& range = ranges[row];
        range = {row_at(piece.keys_begin), row_at(piece.keys_end), row_at(piece.sinks_begin), row_at(piece.sinks_end)};
        range.end = std::max(range.begin, range.end);
        range.sink_end = std::max(range.sink_begin, range.sink_end);
      }
    });
  }
}

}  // namespace orrery
