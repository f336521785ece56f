// The producer of the Hopper forward kernel (kernel.cuh): one thread, which draws tiles of rows, finds what keys they
// see, and has the copy unit bring them; and the inspectors, who make finite what values a mask cuts.
#pragma once

#include <climits>

#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/sm90/forward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class ForwardProducer {
  using Shared = ForwardShared<Element, Tiling>;

 public:
  __device__ __forceinline__ ForwardProducer(Shared& shared, const ForwardLaunch& launch, const ForwardMaps& maps)
      : shared_(shared), launch_(launch), maps_(maps) {}

  // By one thread.
  __device__ __forceinline__ void run() {
    prefetch_map(&maps_.query);
    prefetch_map(&maps_.key);
    prefetch_map(&maps_.value);
    int ticket = block_index();
    while (ticket < launch_.tickets) {
      const ForwardWork<Tiling> work = work_of(ticket);
      if (work.visits.count() > 0 || launch_.call.first || launch_.call.last) bring_tile(work);
      // Not before the tile's last copies are on their way: what a block holds, no other can begin.
      ticket = static_cast<int>(gridDim.x) + atomicAdd(launch_.ticket, 1);
    }
    hand_over({0, -1, 0, {}});
    barrier_wait(shared_.value_empty[value_.place()], value_.empty());
    inspect(-1);
  }

 private:
  // Q, and then the keys and values, as they are wanted.
  __device__ __forceinline__ void bring_tile(const ForwardWork<Tiling>& work) {
    hand_over(work);
    const int visits = work.visits.count();
    for (int visit = 0; visit < visits; ++visit) {
      barrier_wait(shared_.key_empty[key_.place()], key_.empty());
      bring(shared_.key, shared_.key_full[key_.place()], maps_.key, key_, work, visit);
      if (visit > 0) bring_value(work, visit - 1);
    }
    if (visits > 0) bring_value(work, visits - 1);
  }
  __device__ __forceinline__ void bring_value(const ForwardWork<Tiling>& work, int visit) {
    barrier_wait(shared_.value_empty[value_.place()], value_.empty());
    const bool cut = launch_.call.key_ranges.rows != nullptr && !work.visits.is_full(work.visits.first_key(visit));
    if (cut) return bring(shared_.value, inspect(static_cast<int>(value_.place())), maps_.value, value_, work, visit);
    Barrier& full = shared_.value_full[value_.place()];
    bring(shared_.value, full, maps_.value, value_, work, visit);
    for (int i = 1; i < kInspectors; ++i) barrier_arrive(full);  // for them
  }
  // Tells the inspectors what comes next, for the stage that value_ is at, which is empty: so they are done with all
  // that came as many tiles ago as there are stages, and the place is theirs again. The copy is to arrive at what it
  // returns.
  __device__ __forceinline__ Barrier& inspect(int stage) {
    shared_.inspections[inspection_.place()] = {stage, query_.number - 1};
    Barrier& landed = shared_.landed[inspection_.place()];
    ++inspection_.number;
    if (stage < 0) barrier_arrive(landed);
    return landed;
  }

  __device__ __forceinline__ ForwardWork<Tiling> work_of(int ticket) const {
    const AttendForward& call = launch_.call;
    const auto [query_tile, unit] = launch_.order.place(ticket);
    const int heads = static_cast<int>(call.query.heads);
    const int query_len = static_cast<int>(call.query.tokens), key_len = static_cast<int>(call.key.tokens);
    ForwardWork<Tiling> work = {query_tile * Tiling::kQueryTile, unit / heads, unit % heads,
                                key_visits<Tiling>(call.key_ranges, query_tile, query_len, key_len)};
#pragma unroll
    for (int consumer = 0; consumer < Tiling::kConsumers; ++consumer) {
      const int tile = query_tile * Tiling::kConsumers + consumer;
      RangeBounds rows = {0, key_len, 0, key_len, INT_MAX, 0};
      if (tile * kRangeTile >= query_len) {
        rows = {INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
      } else if (call.key_ranges.rows != nullptr) {
        rows = call.key_ranges.tiles[tile];
      }
      work.own[consumer] = own_visits(work.visits, rows);
    }
    return work;
  }

  // Of a consumer whose rows are bounded so, in closed form, for all copies wait for this.
  static __device__ __forceinline__ OwnVisits own_visits(const KeyVisits<Tiling::kKeyTile>& visits,
                                                         const RangeBounds& rows) {
    constexpr int kKeys = Tiling::kKeyTile;
    const auto tile_past = [](int key) { return key / kKeys + (key % kKeys != 0); };
    const int shift = visits.sink_tiles - visits.tile, count = visits.count();  // shift: from tiles of keys to visits
    OwnVisits own{0, count, max(tile_past(rows.full_begin) + shift, visits.sink_tiles), rows.full_end / kKeys + shift};
    if constexpr (Tiling::kTurns) return own;
    own.begin = count, own.end = 0;
    const auto add = [&own](int begin, int end) {
      if (begin < end) own.begin = min(own.begin, begin), own.end = max(own.end, end);
    };
    const auto add_keys = [&](int first, int last) {
      if (first >= last) return;
      add(max(first / kKeys - visits.sink_tile, 0), min(tile_past(last) - visits.sink_tile, visits.sink_tiles));
      add(max(first / kKeys + shift, visits.sink_tiles), min(tile_past(last) + shift, count));
    };
    add_keys(rows.first, rows.last);
    add_keys(rows.sink_first, rows.sink_last);
    if (own.begin >= own.end) own.begin = own.end = 0;
    return own;
  }

  // Tells the consumers, who see `work` when query_full says that Q is there too.
  __device__ __forceinline__ void hand_over(const ForwardWork<Tiling>& work) {
    const std::uint32_t stage = query_.place();
    barrier_wait(shared_.query_empty[stage], query_.empty());
    shared_.work_at(query_.number) = work;
    ++query_.number;
    Barrier& full = shared_.query_full[stage];
    if (work.batch < 0 || work.visits.count() == 0) {
      barrier_arrive(full);
      return;
    }
    barrier_expect(full, shared_.query[0].kBytes);
#pragma unroll
    for (int panel = 0; panel < Tiling::kPanels; ++panel) {
      copy_box(shared_address(shared_.query[stage].elements[panel]), &maps_.query, full, panel * kPanelColumns,
               work.first_row, work.head, work.batch, kEvictFirst);
    }
  }

  // Into the place of the ring, which is empty; `landed` tells when it is there.
  template <typename Tile>
  __device__ __forceinline__ void bring(Tile (&tiles)[Tiling::kStages], Barrier& landed, const CUtensorMap& map,
                                        Ring<Tiling::kStages>& ring, const ForwardWork<Tiling>& work, int visit) {
    const int kv_head = work.head / static_cast<int>(launch_.call.query.heads / launch_.call.key.heads);
    barrier_expect(landed, Tile::kBytes);
#pragma unroll
    for (int panel = 0; panel < Tiling::kPanels; ++panel) {
      copy_box(shared_address(tiles[ring.place()].elements[panel]), &map, landed, panel * kPanelColumns,
               work.visits.first_key(visit), kv_head, work.batch, kEvictLast);
    }
    ++ring.number;
  }

  Shared& shared_;
  const ForwardLaunch& launch_;
  const ForwardMaps& maps_;
  Ring<Tiling::kQueryStages> query_;
  Ring<Tiling::kStages> key_, value_, inspection_;
};

// By the warps of the producer's warpgroup behind the first.
template <typename Element, typename Tiling>
__device__ __forceinline__ void inspect_values(ForwardShared<Element, Tiling>& shared) {
  constexpr int kThreads = kInspectors * kWarp;
  const int thread = thread_index() - kWarp;
  for (Ring<Tiling::kStages> ring;; ++ring.number) {
    barrier_wait_idle(shared.landed[ring.place()], ring.full());
    const auto [stage, tile] = shared.inspections[ring.place()];
    if (stage < 0) return;
    auto* const chunks = reinterpret_cast<uint4*>(shared.value[stage].elements);
    constexpr int kChunks = shared.value[0].kBytes / static_cast<int>(sizeof(uint4));
    if (make_finite<Element, Infinity::zero>(chunks, kChunks, thread, kThreads)) {
      shared.work_at(tile).made_finite = true;
      fence_async_proxy();
    }
    __syncwarp();
    if (thread % kWarp == 0) barrier_arrive(shared.value_full[stage]);
  }
}

}  // namespace orrery::kernels::cuda::sm90
