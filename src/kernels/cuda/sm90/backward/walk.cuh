// How a producer finds its work: which tile of keys a ticket is for, and its steps, the query tiles that see a tile of
// keys, from the last to the first, each with every query head of the group; by the rule of
// kernels/cuda/common/backward_visits.cuh.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/backward_visits.cuh"
#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda::sm90 {

// Tickets go through the KV heads of all batch entries, counted in a row, in sections. In a section come the lowest
// tiles of keys first, those of its heads side by side: under a causal mask they have the most to do.
struct TileOrder {
  std::int32_t key_tiles, heads;
  std::int32_t section;  // heads in each but the last, which may have fewer

  struct Place {
    std::int32_t head, key_tile;
  };
  __device__ __forceinline__ Place operator()(std::int32_t ticket) const {
    const std::int32_t each = section * key_tiles, before = ticket / each * section, rest = ticket % each;
    const std::int32_t here = min(section, heads - before);
    return {before + rest % here, rest / here};
  }
};

// One step of a block: a query tile, and one query head of the group.
struct Step {
  std::uint32_t number;
  std::int32_t tile;  // -1 when there is none
  std::int32_t head;
  std::int32_t turn;
  bool full;
};

// Where a block is on its way through the steps: query tiles falling, and for each the heads of the group. It lies in
// shared memory, for registers are dear.
struct Walk {
  std::int32_t first_tile, last_tile;  // outside of them all query tiles are empty
  std::int32_t base;                   // the first of the 32 tiles looked at last
  unsigned visited, full;              // of these, by bits; visited: that are still ahead
  std::int32_t turns[kWarp];
  Step step;

  // By one whole warp, as all that follows.
  template <typename Rule>
  __device__ void begin(const Rule& rule) {
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
      step = {~0u, -1, 0, 0, false};
    }
    __syncwarp();
  }

  // Looks at 32 tiles at a time.
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
        now = {now.number, window + bit, 0, turns[bit], (whole >> bit & 1) != 0};
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

}  // namespace orrery::kernels::cuda::sm90
