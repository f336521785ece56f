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

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/key_ranges.hpp"

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

// A query tile that a tile of keys visits.
struct Visited {
  std::int32_t tile_full;  // 2 tile + full; -1 behind the last
  std::int32_t turn;
};

// The visits of a block, query tiles falling: those among the next kWindow query tiles are listed, by a thread a tile,
// and when these are done those among the next. It lies in shared memory.
template <int kThreads>
class VisitList {
  static constexpr int kWindow = 128;
  static_assert(kWindow <= kThreads, "a tile has a thread");

 public:
  // Before the first fill(), by all threads.
  template <typename Rule>
  __device__ void begin(const Rule& rule) {
    const int thread = thread_index();
    const std::int32_t tiles = rule.query_tiles();
    const bool all = rule.bounds == nullptr || tiles <= kWindow;  // few enough to be looked at once
    if (thread == 0) {
      first_tile_ = all ? 0 : tiles;
      end_ = all ? tiles : 0;
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
        atomicMin(&first_tile_, first);
        atomicMax(&end_, last + 1);
      }
      __syncthreads();
    }
  }

  // Lists the next visits, none only when all are done. By all threads; who comes late may still read the list until
  // all are here.
  template <typename Rule>
  __device__ void fill(const Rule& rule) {
    const int thread = thread_index(), lane = thread % kWarp;
    std::int32_t count = 0;
    do {
      const std::int32_t first_tile = first_tile_, end = end_, tile = end - 1 - thread;
      const Visit visit = thread < kWindow && tile >= first_tile ? rule(tile) : Visit{true, false, 0};
      const unsigned visited = __ballot_sync(kAllLanes, !visit.empty);
      if (lane == 0 && thread < kWindow) counts_[thread / kWarp] = __popc(visited);
      __syncthreads();  // all have read the end
      if (thread == 0) end_ = end - kWindow;
      std::int32_t at = __popc(visited & ((1u << lane) - 1));
      count = 0;
#pragma unroll
      for (int warp = 0; warp < kWindow / kWarp; ++warp) {
        if (warp == thread / kWarp) at += count;
        count += counts_[warp];
      }
      if (!visit.empty) visits_[at] = {tile * 2 + (visit.full ? 1 : 0), visit.turn};
      if (thread == 0) visits_[count] = {-1, 0};
      __syncthreads();
      if (end - kWindow <= first_tile) break;
    } while (count == 0);
  }

  __device__ const Visited& operator[](std::int32_t index) const {
    return visits_[index];
  }

 private:
  std::int32_t first_tile_, end_;  // query tiles that are still ahead: [first_tile_, end_)
  std::int32_t counts_[kWindow / kWarp];
  Visited visits_[kWindow + 1];
};

}  // namespace orrery::kernels::cuda
