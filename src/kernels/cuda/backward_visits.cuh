// Which query tiles a tile of keys visits, and whose turn it is to add to their dQ. Both follow from RangeBounds alone,
// by one rule, so that blocks agree on them without a word.
//
// The keys that a query tile sees lie in two intervals, its keys and its sinks; rounded outwards to tiles of keys,
// these are the tiles of keys that visit it. They add to its dQ in rising order: the turn of tile j is the number of
// visitors below j. Query tiles are visited from the last to the first. Under a causal mask or a window a lower tile of
// keys then never reaches a query tile later than a higher one that began with it, so that waiting for one's turn is
// rare.
#pragma once

#include <climits>
#include <cstdint>

#include "kernels/cuda/key_ranges.hpp"
#include "kernels/cuda/ptx.cuh"

namespace orrery::kernels::cuda {

// [begin, end) of tiles of keys.
struct TileInterval {
  std::int32_t begin, end;

  __device__ bool holds(std::int32_t tile) const { return begin <= tile && tile < end; }
  __device__ std::int32_t below(std::int32_t tile) const { return max(min(end, tile) - begin, 0); }
};

// The tiles of kTileKeys keys that meet [first, last), of key_len keys.
template <int kTileKeys>
__device__ inline TileInterval tiles_meeting(std::int32_t first, std::int32_t last, std::int32_t key_len) {
  first = max(first, 0);
  last = min(last, key_len);
  if (first >= last) return {0, 0};
  return {first / kTileKeys, (last - 1) / kTileKeys + 1};
}

// What a tile of keys does with a query tile.
struct Visit {
  bool empty, full;
  std::int32_t turn;
};

template <int kTileQueries_, int kTileKeys>
struct VisitRule {
  static constexpr int kTileQueries = kTileQueries_;
  static_assert(kTileQueries % kRangeTile == 0, "a query tile is described by whole RangeBounds");

  const RangeBounds* bounds;  // [ceil(query_len / kRangeTile)], or null: every query sees every key
  std::int32_t query_len, key_len;
  std::int32_t key_tile;

  __device__ std::int32_t query_tiles() const { return (query_len - 1) / kTileQueries + 1; }

  __device__ Visit operator()(std::int32_t query_tile) const {
    const std::int32_t begin = key_tile * kTileKeys;
    const bool whole = kTileKeys <= key_len - begin;
    if (bounds == nullptr) return {false, whole, key_tile};
    RangeBounds all = {INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
#pragma unroll
    for (int i = 0; i < kTileQueries / kRangeTile; ++i) {
      const std::int32_t tile = query_tile * (kTileQueries / kRangeTile) + i;
      if (tile > (query_len - 1) / kRangeTile) break;
      const RangeBounds one = bounds[tile];
      all.first = min(all.first, one.first);
      all.last = max(all.last, one.last);
      all.full_begin = max(all.full_begin, one.full_begin);
      all.full_end = min(all.full_end, one.full_end);
      all.sink_first = min(all.sink_first, one.sink_first);
      all.sink_last = max(all.sink_last, one.sink_last);
    }
    const TileInterval keys = tiles_meeting<kTileKeys>(all.first, all.last, key_len);
    const TileInterval sinks = tiles_meeting<kTileKeys>(all.sink_first, all.sink_last, key_len);
    const TileInterval both = {max(keys.begin, sinks.begin), min(keys.end, sinks.end)};
    return {!keys.holds(key_tile) && !sinks.holds(key_tile),
            whole && all.full_begin <= begin && begin + kTileKeys <= all.full_end,
            keys.below(key_tile) + sinks.below(key_tile) - both.below(key_tile)};
  }
};

// One step of a block: a query tile, and one query head of the group.
struct Step {
  std::uint32_t number;
  std::int32_t tile;  // -1 when there is none
  std::int32_t head;
  std::int32_t turn;
  bool full;
  bool dead;  // some of its rows have an lse of -inf; known when these are loaded
};

// Where a block is on its way through the steps: query tiles falling, and for each the heads of the group. It lies in
// shared memory, for registers are dear.
struct Walk {
  std::int32_t first_tile, last_tile;  // outside of them all query tiles are empty
  std::int32_t base;                   // the first of the 32 tiles looked at last
  unsigned visited, full;              // of these, by bits; visited: that are still ahead
  std::int32_t turns[kWarp];
  Step step;

  // By all kThreads threads of a block.
  template <int kThreads, typename Rule>
  __device__ void begin(const Rule& rule) {
    const int thread = thread_index();
    const std::int32_t tiles = rule.query_tiles();
    const bool all = rule.bounds == nullptr;
    if (thread == 0) {
      first_tile = all ? 0 : tiles;
      last_tile = all ? tiles - 1 : -1;
    }
    __syncthreads();
    if (!all) {
      std::int32_t first = tiles, last = -1;
      for (std::int32_t tile = thread; tile < tiles; tile += kThreads) {
        if (rule(tile).empty) continue;
        first = min(first, tile);
        last = tile;
      }
      first = __reduce_min_sync(kAllLanes, first);
      last = __reduce_max_sync(kAllLanes, last);
      if (thread % kWarp == 0) {
        atomicMin(&first_tile, first);
        atomicMax(&last_tile, last);
      }
      __syncthreads();
    }
    if (thread == 0) {
      base = last_tile / kWarp * kWarp + kWarp;
      visited = full = 0;
      step = {~0u, -1, 0, 0, false, false};
    }
    __syncthreads();
  }

  // By one whole warp, where no other takes part.
  template <typename Rule>
  __device__ void begin_alone(const Rule& rule) {
    const int lane = thread_index() % kWarp;
    const std::int32_t tiles = rule.query_tiles();
    std::int32_t first = 0, last = tiles - 1;
    if (rule.bounds != nullptr) {
      first = tiles;
      last = -1;
#pragma unroll 4
      for (std::int32_t tile = lane; tile < tiles; tile += kWarp) {
        const bool empty = rule(tile).empty;
        first = empty ? first : min(first, tile);
        last = empty ? last : tile;
      }
      first = __reduce_min_sync(kAllLanes, first);
      last = __reduce_max_sync(kAllLanes, last);
    }
    __syncwarp();
    if (lane == 0) {
      first_tile = first;
      last_tile = last;
      base = last / kWarp * kWarp + kWarp;
      visited = full = 0;
      step = {~0u, -1, 0, 0, false, false};
    }
    __syncwarp();
  }

  // By one whole warp, which looks at 32 tiles at a time.
  template <typename Rule>
  __device__ Step next(const Rule& rule, std::int32_t group) {
    const int lane = thread_index() % kWarp;
    Step now = step;
    ++now.number;
    std::int32_t window = base;
    unsigned ahead = visited, whole = full;
    __syncwarp();
    if (now.tile >= 0 && now.head + 1 < group) {
      ++now.head;
    } else {
      now.tile = -1;
      while (ahead == 0 && window > first_tile) {
        window -= kWarp;
        const std::int32_t tile = window + lane;
        const Visit visit = tile < rule.query_tiles() ? rule(tile) : Visit{true, false, 0};
        ahead = __ballot_sync(kAllLanes, !visit.empty);
        whole = __ballot_sync(kAllLanes, visit.full);
        turns[lane] = visit.turn;
        __syncwarp();
      }
      if (ahead != 0) {
        const int bit = kWarp - 1 - __clz(static_cast<int>(ahead));
        ahead &= ~(1u << bit);
        now = {now.number, window + bit, 0, turns[bit], (whole >> bit & 1) != 0, false};
      }
    }
    if (lane == 0) {
      base = window;
      visited = ahead;
      full = whole;
      step = now;
    }
    __syncwarp();
    return now;
  }
};

}  // namespace orrery::kernels::cuda
