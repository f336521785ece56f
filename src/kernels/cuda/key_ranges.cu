// A warp works out the ranges of the rows of one tile, two rows a lane, and then their bounds. Every step is the one
// that the host takes (backend/memory/key_runs.cpp), so the numbers are the same.
#include <climits>

#include "device/check.hpp"
#include "kernels/cuda/key_ranges.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kWarps = 4;  // tiles a block
constexpr unsigned kWholeWarp = ~0u;

static_assert(kRangeTile % kLanes == 0, "the lanes of a warp take equal numbers of a tile's rows");

// The first index of [0, count) for which is_past is true, and count when there is none; it is false before and true
// from there on.
template <typename IsPast>
__device__ int partition_point(int count, const IsPast& is_past) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (is_past(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The position of a query row. Spans without tokens share the row of the next one, so the last that begins at or
// before the row is the one that holds it.
__device__ std::int64_t position_of(const FillKeyRanges& call, std::int64_t row) {
  const int after = partition_point(call.query_span_count, [&](int i) { return call.query_spans[i].row > row; });
  const SpanRows& span = call.query_spans[after - 1];
  return span.begin + (row - span.row) * span.stride;
}

__device__ std::int32_t keys_before(const FillKeyRanges& call, std::int64_t position) {
  const int after = partition_point(call.key_span_count, [&](int i) { return position <= call.key_spans[i].begin; });
  if (after == 0) return 0;
  const SpanRows& span = call.key_spans[after - 1];
  const std::int64_t inside = (position - span.begin + span.stride - 1) / span.stride;
  return static_cast<std::int32_t>(span.row + min(inside, span.count));
}

__device__ KeyRange range_of(const FillKeyRanges& call, std::int64_t row) {
  const std::int64_t position = position_of(call, row);
  const PieceRows& piece =
      call.pieces[partition_point(call.piece_count, [&](int i) { return position < call.pieces[i].end; })];
  std::int32_t bounds[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) bounds[i] = keys_before(call, piece.slopes[i] * position + piece.offsets[i]);
  return {bounds[0], max(bounds[0], bounds[1]), bounds[2], max(bounds[2], bounds[3])};
}

__device__ void include(RangeBounds& bounds, const KeyRange& range) {
  if (range.begin < range.end) {
    bounds.first = min(bounds.first, range.begin);
    bounds.last = max(bounds.last, range.end);
    bounds.full_begin = max(bounds.full_begin, range.begin);
    bounds.full_end = min(bounds.full_end, range.end);
  } else {
    bounds.full_begin = INT_MAX;
    bounds.full_end = 0;
  }
  if (range.sink_begin < range.sink_end) {
    bounds.sink_first = min(bounds.sink_first, range.sink_begin);
    bounds.sink_last = max(bounds.sink_last, range.sink_end);
  }
}

__global__ void __launch_bounds__(kWarps* kLanes) fill(FillKeyRanges call) {
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  RangeBounds bounds = {INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
  for (int i = lane; i < kRangeTile; i += kLanes) {
    const std::int64_t row = tile * kRangeTile + i;
    if (row >= call.query_len) break;
    const KeyRange range = range_of(call, row);
    call.rows[row] = range;
    include(bounds, range);
  }
  bounds = {__reduce_min_sync(kWholeWarp, bounds.first),      __reduce_max_sync(kWholeWarp, bounds.last),
            __reduce_max_sync(kWholeWarp, bounds.full_begin), __reduce_min_sync(kWholeWarp, bounds.full_end),
            __reduce_min_sync(kWholeWarp, bounds.sink_first), __reduce_max_sync(kWholeWarp, bounds.sink_last)};
  if (lane == 0 && tile * kRangeTile < call.query_len) call.tiles[tile] = bounds;
}

}  // namespace

void fill_key_ranges(const FillKeyRanges& call, device::StreamHandle stream) {
  if (call.query_len == 0) return;
  const std::int64_t tiles = (call.query_len + kRangeTile - 1) / kRangeTile;
  fill<<<static_cast<unsigned>((tiles + kWarps - 1) / kWarps), kWarps * kLanes, 0, stream>>>(call);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
