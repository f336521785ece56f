// From positions to rows, on the device: for each query row the range of key rows it sees, and for each tile of query
// rows the bounds of these ranges, from which the attention kernels tell tiles of keys that are empty, full or partial.
#pragma once

#include <cstdint>

#include "device/handles.hpp"
#include "kernels/key_range.hpp"

namespace orrery::kernels::cuda {

// Query rows that share one RangeBounds. Kernels take tiles of this many rows or a multiple.
inline constexpr int kRangeTile = 64;

// Of the rows of a tile. A tile of keys [a, b) is empty for them when it meets neither [first, last) nor [sink_first,
// sink_last); full when full_begin <= a and b <= full_end; else partial.
struct RangeBounds {
  std::int32_t first, last;  // union of the rows' [begin, end); an empty one does not count. {INT_MAX, 0}: none
  std::int32_t full_begin, full_end;   // intersection; {INT_MAX, 0} when a row's is empty
  std::int32_t sink_first, sink_last;  // union of the rows' sinks
};

// On the device.
struct KeyRanges {
  const KeyRange* rows = nullptr;      // [query_len]
  const RangeBounds* tiles = nullptr;  // [ceil(query_len / kRangeTile)]; rows past the end do not count
};

// A span of positions and the row of its first token.
struct SpanRows {
  std::int64_t begin, count, stride;  // as orrery::Span
  std::int64_t row;
};

// MaskPiece (orrery/mask.hpp) as the device reads it: at position p a boundary is slope * p + offset.
struct PieceRows {
  std::int64_t end;         // of the query positions; a piece begins where the one before it ends
  std::int64_t offsets[4];  // keys_begin, keys_end, sinks_begin, sinks_end
  std::int32_t slopes[4];
};

struct FillKeyRanges {
  const SpanRows* query_spans;  // [query_span_count], on the device, as all pointers here
  int query_span_count;
  std::int64_t query_len;
  const SpanRows* key_spans;  // [key_span_count], positions rising from span to span: one KeyRun
  int key_span_count;
  const PieceRows* pieces;  // [piece_count]: all pieces of the mask, in order
  int piece_count;
  KeyRange* rows;      // [query_len], written
  RangeBounds* tiles;  // [ceil(query_len / kRangeTile)], written
};

// The same ranges as fill_key_ranges() of backend/memory/key_runs.hpp makes on the host.
void fill_key_ranges(const FillKeyRanges& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
