// What the producers of Hopper's backward kernels have in common (backward_producer.cuh, wide_producer.cuh): they draw
// tiles of keys by tickets and find the steps of each; they copy tiles by panels; and they say, by bits, who sees whom.
#pragma once

#include <climits>
#include <cstdint>

#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/sm90/backward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

// put(step, its number, the tile's ring) for every step of every tile of keys that this block draws; then tells the
// others that there are no more. By one whole warp.
template <typename Rule, int kQueryStages, typename Shared, typename Put>
__device__ __forceinline__ void bring_steps(const BackwardArgs& args, Shared& shared, const Put& put) {
  std::uint32_t number = 0;
  Ring<1> tile;
  while (true) {
    std::int32_t ticket = 0;
    if (thread_index() == 0) ticket = atomicAdd(args.ticket, 1);
    ticket = __shfl_sync(kAllLanes, ticket, 0);
    if (ticket >= args.tickets) break;
    __syncwarp();
    if (thread_index() == 0) {
      const auto [head, key_tile] = args.order(ticket);
      shared.work = {key_tile, head / args.kv_heads, head % args.kv_heads};
    }
    __syncwarp();
    const Rule rule = {args.bounds, args.query_len, args.key_len, shared.work.key_tile};
    shared.walk.begin(rule);
    Step now = shared.walk.next(rule, args.group);
    if (now.tile < 0) {
      if (args.key_gradients != KeyGradients::add) put_zeros(args, shared.work, Shared::kKeys);
      continue;
    }
    bool first = true;
    while (now.tile >= 0) {
      const Step next = shared.walk.next(rule, args.group);
      put({now.tile, shared.work.kv_head * args.group + now.head, now.turn, shared.work, now.full, first,
           next.tile < 0},
          number, tile);
      now = next;
      first = false;
      ++number;
    }
    ++tile.number;
  }
  const Ring<kQueryStages> ring = {number};
  barrier_wait(shared.query_empty[ring.place()], ring.empty());
  if (thread_index() == 0) shared.step(number).tile = -1;
  arrive_as_warp(shared.rows_full[ring.place()]);
}

// By one thread.
template <typename Tile>
__device__ __forceinline__ void copy_panels(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                            std::int32_t head, std::int32_t batch, std::uint64_t keep) {
  constexpr int kPanels = sizeof(tile.panels) / sizeof(tile.panels[0]);
#pragma unroll
  for (int panel = 0; panel < kPanels; ++panel) {
    copy_box(shared_address(tile.panels[panel]), &map, full, panel * kPanelColumns, row, head, batch, keep);
  }
}
template <typename Tile>
__device__ __forceinline__ void copy_tile(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                          std::int32_t head, std::int32_t batch) {
  barrier_expect(full, static_cast<int>(sizeof(Tile)));
  copy_panels(tile, map, full, row, head, batch, kEvictNormal);
}

// K and V of the tile of keys that a step is the first of, when those of the tile before are no longer needed.
template <typename Shared>
__device__ __forceinline__ void bring_keys(const BackwardArgs& args, Shared& shared, const BackwardStep& now,
                                           const Ring<1>& tile) {
  barrier_wait(shared.keys_empty, tile.empty());
  if (elect_one()) {
    const std::int32_t first = now.work.key_tile * Shared::kKeys;
    barrier_expect(shared.keys_full, 2 * static_cast<int>(sizeof(typename Shared::KeyTile)));
    copy_panels(shared.key, args.key, shared.keys_full, first, now.work.kv_head, now.work.batch, kEvictFirst);
    copy_panels(shared.value, args.value, shared.keys_full, first, now.work.kv_head, now.work.batch, kEvictFirst);
  }
}

// The low bits, `count` of them, none to all.
__device__ __forceinline__ std::uint32_t low_bits(std::int32_t count) {
  return count <= 0 ? 0 : count >= 32 ? ~0u : (1u << count) - 1;
}
// Which keys from `first_key` on a query sees, at its place. Rows past the end take the last row's range.
template <typename Shared>
__device__ __forceinline__ void put_seen(const BackwardArgs& args, typename Shared::StageRows& rows, int place,
                                         std::int32_t query, std::int32_t first_key) {
  int4 range = {0, INT_MAX, 0, 0};  // as KeyRange
  if (args.ranges != nullptr) {
    range = __ldg(reinterpret_cast<const int4*>(args.ranges + min(query, args.query_len - 1)));
  }
  range.y = min(range.y, args.key_len);
  range.w = min(range.w, args.key_len);
#pragma unroll
  for (int word = 0; word < Shared::kWords; ++word) {
    const std::int32_t key = first_key + word * 32;
    rows.seen[word][place] =
        (low_bits(range.y - key) & ~low_bits(range.x - key)) | (low_bits(range.w - key) & ~low_bits(range.z - key));
  }
}

}  // namespace orrery::kernels::cuda::sm90
