// The geometry of the forward kernel: how it cuts rows and keys into tiles, which block of threads takes which rows,
// and which keys it visits for them.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>

#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/common/ptx.cuh"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {

template <int kDim_, int kQueryTile_, int kKeyTile_, int kWarps_, int kStages_, int kBlocksPerSm_>
struct ForwardTiling {
  static constexpr int kDim = kDim_, kQueryTile = kQueryTile_, kKeyTile = kKeyTile_;
  static constexpr int kWarps = kWarps_, kThreads = kWarps * kWarp;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocksPerSm = kBlocksPerSm_;     // that registers and shared memory are to allow
  static constexpr int kWarpRows = kQueryTile / kWarps;  // query rows of a warp
  static constexpr int kRowBlocks = kWarpRows / 16;      // ... in blocks of 16
  static constexpr int kKeyBlocks = kKeyTile / 8;        // accumulators across a tile of keys
  static constexpr int kColumnBlocks = kDim / 8;         // ... and across a head
  static_assert(kQueryTile % (16 * kWarps) == 0, "a warp owns whole blocks of 16 rows");
  static_assert(kQueryTile % kRangeTile == 0, "range bounds are given for whole parts of a query tile");
  static_assert(kKeyTile % 16 == 0 && kDim % 32 == 0, "a product's depth goes in steps of 16");
  static_assert(kStages == 1 || kStages == 2, "the loop knows these two ways of loading");
};

// Which block of threads does what. Blocks are handed out in the order of their numbers. A section is the heads whose
// keys and values fit the L2 cache together, and one section follows another. Within a section the last rows come
// first, since under a causal mask they see most. The same rows of all heads stand next to each other, so that heads
// that share keys and values read them together.
struct ForwardOrder {
  int query_tiles, units, section_units;  // a unit is one head of one batch entry

  struct Place {
    int query_tile, unit;
  };
  __device__ __forceinline__ Place place(int block) const {
    const int section = block / (section_units * query_tiles);
    const int rest = block - section * section_units * query_tiles;
    const int first_unit = section * section_units, units_here = min(section_units, units - first_unit);
    return {query_tiles - 1 - rest / units_here, first_unit + rest % units_here};
  }
  int blocks() const { return units * query_tiles; }
};

// That of a call which has queries.
template <typename Tiling>
ForwardOrder forward_order(const AttendForward& call) {
  constexpr std::int64_t kSectionBytes = 32 << 20;  // of keys and values: most of an L2 cache
  const TensorView &query = call.query, &key = call.key;
  const std::int64_t query_tiles = (query.tokens + Tiling::kQueryTile - 1) / Tiling::kQueryTile;
  const std::int64_t units = query.batch * query.heads, group = query.heads / key.heads;
  ORRERY_CHECK(units * query_tiles <= INT_MAX && query.tokens <= INT_MAX - Tiling::kQueryTile &&
                   key.tokens <= INT_MAX - Tiling::kKeyTile,
               units, " heads of ", query.tokens, " queries and ", key.tokens, " keys");
  const std::int64_t head_bytes = 2 * key.tokens * key.width * static_cast<std::int64_t>(size_of(key.dtype));
  const std::int64_t section_heads = std::max<std::int64_t>(kSectionBytes / std::max<std::int64_t>(head_bytes, 1), 1);
  return {static_cast<int>(query_tiles), static_cast<int>(units),
          static_cast<int>(std::min(section_heads * group, units))};
}

// What a thread works on. Made from special registers, which are cheap to read, rather than kept: the loop over keys
// needs all others.
struct ForwardPlace {
  int thread, lane, warp_row;  // warp_row: the first of the warp's rows in the tile
  int query_tile, first_row;   // the tile's first row
  int batch, head, kv_head;

  __device__ __forceinline__ int lane_row() const { return warp_row + lane / 4; }
};

template <typename Tiling>
__device__ __forceinline__ ForwardPlace forward_place(const AttendForward& call, const ForwardOrder& order, int block) {
  const int thread = thread_index(), heads = static_cast<int>(call.query.heads);
  const auto [query_tile, unit] = order.place(block);
  const int head = unit % heads;
  return {thread,
          thread % kWarp,
          thread / kWarp * Tiling::kWarpRows,
          query_tile,
          query_tile * Tiling::kQueryTile,
          unit / heads,
          head,
          head / (heads / static_cast<int>(call.key.heads))};
}

// The tiles of keys that a tile of query rows visits: two runs, of which the first holds sinks and is often empty.
template <int kKeyTile>
struct KeyVisits {
  int sink_tile, sink_tiles, tile, tiles;
  int full_begin, full_end;  // every row sees all these keys

  __device__ __forceinline__ int count() const { return sink_tiles + tiles; }
  __device__ __forceinline__ int first_key(int visit) const {
    return (visit < sink_tiles ? sink_tile + visit : tile + visit - sink_tiles) * kKeyTile;
  }
  __device__ __forceinline__ bool is_full(int key) const { return full_begin <= key && key + kKeyTile <= full_end; }
};

template <typename Tiling>
__device__ __forceinline__ KeyVisits<Tiling::kKeyTile> key_visits(const KeyRanges& ranges, int query_tile,
                                                                  int query_len, int key_len) {
  RangeBounds all{0, key_len, 0, key_len, INT_MAX, 0};
  if (ranges.rows != nullptr) {
    all = {INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
    constexpr int kParts = Tiling::kQueryTile / kRangeTile;
    for (int part = 0; part < kParts; ++part) {
      const int index = query_tile * kParts + part;
      if (index * kRangeTile >= query_len) break;
      const RangeBounds bounds = ranges.tiles[index];
      if (bounds.first < bounds.last) {
        all.first = min(all.first, bounds.first);
        all.last = max(all.last, bounds.last);
      }
      if (bounds.sink_first < bounds.sink_last) {
        all.sink_first = min(all.sink_first, bounds.sink_first);
        all.sink_last = max(all.sink_last, bounds.sink_last);
      }
      all.full_begin = max(all.full_begin, bounds.full_begin);
      all.full_end = min(all.full_end, bounds.full_end);
    }
  }
  const auto tile_at = [](int key) { return key / Tiling::kKeyTile; };
  const auto tile_past = [](int key) { return (key + Tiling::kKeyTile - 1) / Tiling::kKeyTile; };
  int begin = 0, end = 0, sink_begin = 0, sink_end = 0;
  if (all.first < all.last) begin = tile_at(all.first), end = tile_past(all.last);
  if (all.sink_first < all.sink_last) sink_begin = tile_at(all.sink_first), sink_end = tile_past(all.sink_last);
  if (max(begin, sink_begin) < min(end, sink_end)) {  // they meet: one run, so that no tile is visited twice
    begin = min(begin, sink_begin), end = max(end, sink_end);
    sink_begin = sink_end = 0;
  }
  return {sink_begin, sink_end - sink_begin, begin, end - begin, all.full_begin, all.full_end};
}

// Bit i: whether key first + i is in the range (begin, end, sink_begin, sink_end), for 32 keys.
__device__ __forceinline__ std::uint32_t visible_bits(const int4& range, int first) {
  const auto below = [first](int key) { return __funnelshift_lc(~0u, 0u, max(key - first, 0)); };
  return (below(range.y) & ~below(range.x)) | (below(range.w) & ~below(range.z));
}

}  // namespace orrery::kernels::cuda
