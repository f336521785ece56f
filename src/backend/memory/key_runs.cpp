#include "backend/memory/key_runs.hpp"

#include <algorithm>

namespace orrery {

std::vector<KeyRun> key_runs(std::span<const Span> key_spans) {
  std::vector<KeyRun> runs;
  std::int64_t row = 0;
  for (const Span& span : key_spans) {
    if (span.count == 0) continue;
    if (runs.empty() || !runs.back().keys.takes(span)) runs.push_back({row, {}});
    runs.back().keys.add(span);
    row += span.count;
  }
  return runs;
}

void fill_key_ranges(const Mask& mask, std::span<const Span> query_spans, const KeyRun& run,
                     std::span<kernels::KeyRange> ranges) {
  std::size_t row = 0;
  for (const Span& span : query_spans) {
    std::int64_t index = 0;
    mask.for_each_piece(span.begin, span.last() + 1, [&](const MaskPiece& piece) {
      for (; index < span.count && span.at(index) < piece.end; ++index, ++row) {
        const std::int64_t p = span.at(index);
        const auto row_at = [&](const Boundary& b) { return static_cast<std::int32_t>(run.keys.rows_before(b.at(p))); };
        kernels::KeyRange& range = ranges[row];
        range = {row_at(piece.keys_begin), row_at(piece.keys_end), row_at(piece.sinks_begin), row_at(piece.sinks_end)};
        range.end = std::max(range.begin, range.end);
        range.sink_end = std::max(range.sink_begin, range.sink_end);
      }
    });
  }
}

}  // namespace orrery
