// The producer of the Hopper backward kernel for wide heads (attend_backward_wide.cuh): one warp, which draws tiles of
// keys, finds their steps and brings what these need, as far ahead as there are stages.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/backward_visits.cuh"
#include "kernels/cuda/sm90/wide_block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class WideProducer {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  using Rule = VisitRule<kQueries, kKeys>;
  using Stage = Ring<Tiling::kQueryStages>;
  using GradOutStage = Ring<Tiling::kGradOutStages>;
  using Shared = WideShared<Element, Tiling>;

 public:
  __device__ __forceinline__ WideProducer(const BackwardArgs& args, Shared& shared) : args_(args), shared_(shared) {}

  // By the whole warp.
  __device__ __forceinline__ void run() {
    std::uint32_t number = 0;
    Ring<1> tile;
    while (true) {
      std::int32_t ticket = 0;
      if (thread_index() == 0) ticket = atomicAdd(args_.ticket, 1);
      ticket = __shfl_sync(kAllLanes, ticket, 0);
      if (ticket >= args_.tickets) break;
      take(ticket);
      const Rule rule = {args_.bounds, args_.query_len, args_.key_len, shared_.work.key_tile};
      shared_.walk.begin(rule);
      Step now = shared_.walk.next(rule, args_.group);
      if (now.tile < 0) {
        if (args_.key_gradients != KeyGradients::add) put_zeros(args_, shared_.work, kKeys);
        continue;
      }
      bool first = true;
      while (now.tile >= 0) {
        const Step next = shared_.walk.next(rule, args_.group);
        put({now.tile, shared_.work.kv_head * args_.group + now.head, now.turn, shared_.work, now.full, first,
             next.tile < 0},
            number, tile);
        now = next;
        first = false;
        ++number;
      }
      ++tile.number;
    }
    const Stage ring = {number};
    barrier_wait(shared_.query_empty[ring.place()], ring.empty());
    if (thread_index() == 0) shared_.step(number).tile = -1;
    arrive_as_warp(shared_.rows_full[ring.place()]);
  }

  // The other warp: dO of the steps that the first finds. Alone, a warp would wait for a place of dO before it brings
  // the next Q.
  __device__ __forceinline__ void run_grad_out() {
    const int lane = thread_index() % kWarp;
    for (std::uint32_t number = 0;; ++number) {
      const Stage stage = {number};
      barrier_wait(shared_.rows_full[stage.place()], stage.full());
      const BackwardStep now = shared_.step(number);
      if (now.tile < 0) break;
      const auto& rows = shared_.rows[stage.place()];
      bool dead = false;
#pragma unroll
      for (int row = lane; row < kQueries; row += kWarp) dead |= rows.lse[row] == INFINITY;
      dead = __any_sync(kAllLanes, dead);
      const GradOutStage ring = {number};
      auto& grad_out = shared_.grad_out[ring.place()];
      Barrier &full = shared_.grad_out_full[ring.place()], &landed = shared_.landed[1];
      barrier_wait(shared_.grad_out_empty[ring.place()], ring.empty());
      copy_tile(grad_out, args_.grad_out, dead ? landed : full, now.tile * kQueries, now.head, now.work.batch);
      if (dead) bury(grad_out, rows, landed, full);
    }
  }

 private:
  __device__ __forceinline__ void take(std::int32_t ticket) {
    __syncwarp();
    if (thread_index() == 0) {
      const auto [head, key_tile] = args_.order(ticket);
      shared_.work = {key_tile, head / args_.kv_heads, head % args_.kv_heads};
    }
    __syncwarp();
  }

  // Brings what a step needs.
  __device__ __forceinline__ void put(const BackwardStep& now, std::uint32_t number, const Ring<1>& tile) {
    constexpr int kLaneRows = kQueries / kWarp;
    const Stage stage = {number};
    const int lane = thread_index() % kWarp;
    const std::int32_t first_query = now.tile * kQueries;
    // Rows past the end get and give nothing.
    float lse[kLaneRows], delta[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const std::int32_t query = first_query + i * kWarp + lane;
      const bool within = query < args_.query_len;
      lse[i] = within ? *args_.lse.at(now.work.batch, query, now.head) : INFINITY;
      delta[i] = within ? *args_.delta.at(now.work.batch, query, now.head) : 0.0f;
    }
    barrier_wait(shared_.query_empty[stage.place()], stage.empty());
    bool dead = false;
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) dead |= lse[i] == -INFINITY;
    dead = __any_sync(kAllLanes, dead);
    auto& query = shared_.query[stage.place()];
    Barrier& query_full = shared_.query_full[stage.place()];
    copy_tile(query, args_.query, dead ? shared_.landed[0] : query_full, first_query, now.head, now.work.batch);
    if (now.first) {
      barrier_wait(shared_.keys_empty, tile.empty());
      if (elect_one()) {
        barrier_expect(shared_.keys_full, 2 * static_cast<int>(sizeof(typename Shared::KeyTile)));
        copy_panels(shared_.key, args_.key, shared_.keys_full, now.work.key_tile * kKeys, now.work.kv_head,
                    now.work.batch, kEvictFirst);
        copy_panels(shared_.value, args_.value, shared_.keys_full, now.work.key_tile * kKeys, now.work.kv_head,
                    now.work.batch, kEvictFirst);
      }
    }
    auto& rows = shared_.rows[stage.place()];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = i * kWarp + lane;
      const bool unseeing = lse[i] == -INFINITY;
      rows.lse[row] = unseeing ? INFINITY : lse[i] * kLog2E;
      rows.delta[row] = unseeing ? 0.0f : kScaledScores<Element> ? delta[i] * args_.scale : delta[i];
      if (!now.full) put_seen(rows, row, first_query, now.work.key_tile * kKeys);
    }
    if (lane == 0) shared_.step(number) = now;
    if (dead) bury(query, rows, shared_.landed[0], query_full);
    arrive_as_warp(shared_.rows_full[stage.place()]);
  }

  template <typename Tile>
  __device__ __forceinline__ void copy_panels(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                              std::int32_t head, std::int32_t batch, std::uint64_t keep) const {
#pragma unroll
    for (int panel = 0; panel < Shared::kPanels; ++panel) {
      copy_box(shared_address(tile.panels[panel]), &map, full, panel * kPanelColumns, row, head, batch, keep);
    }
  }
  template <typename Tile>
  __device__ __forceinline__ void copy_tile(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                            std::int32_t head, std::int32_t batch) const {
    if (elect_one()) {
      barrier_expect(full, static_cast<int>(sizeof(Tile)));
      copy_panels(tile, map, full, row, head, batch, kEvictNormal);
    }
  }

  // The low bits, `count` of them, none to all.
  static __device__ __forceinline__ std::uint32_t low_bits(std::int32_t count) {
    return count <= 0 ? 0 : count >= 32 ? ~0u : (1u << count) - 1;
  }
  // Rows past the end take the last row's range.
  __device__ __forceinline__ void put_seen(typename Shared::StageRows& rows, int row, std::int32_t first_query,
                                           std::int32_t first_key) const {
    int4 range = {0, INT_MAX, 0, 0};  // as KeyRange
    if (args_.ranges != nullptr) {
      range = __ldg(reinterpret_cast<const int4*>(args_.ranges + min(first_query + row, args_.query_len - 1)));
    }
    range.y = min(range.y, args_.key_len);
    range.w = min(range.w, args_.key_len);
#pragma unroll
    for (int word = 0; word < Shared::kWords; ++word) {
      const std::int32_t key = first_key + word * 32;
      rows.seen[word][row] =
          (low_bits(range.y - key) & ~low_bits(range.x - key)) | (low_bits(range.w - key) & ~low_bits(range.z - key));
    }
  }

  // Makes zeros of dead rows of what is to land, which have seen nothing and may hold anything: what P = 0 is
  // multiplied by must be finite. Then the tile is full.
  __device__ __forceinline__ void bury(typename Shared::QueryTile& tile, const typename Shared::StageRows& rows,
                                       Barrier& landed, Barrier& full) {
    const int lane = thread_index() % kWarp;
    barrier_wait(landed, landed_.full());
    ++landed_.number;
    __syncwarp();
    for (int row = 0; row < kQueries; ++row) {
      if (rows.lse[row] != INFINITY) continue;
#pragma unroll
      for (int panel = 0; panel < Shared::kPanels; ++panel) {
        reinterpret_cast<std::uint32_t*>(tile.panels[panel][row])[lane] = 0;
      }
    }
    fence_async_proxy();
    arrive_as_warp(full);
  }

  const BackwardArgs& args_;
  Shared& shared_;
  Ring<1> landed_;
};

}  // namespace orrery::kernels::cuda::sm90
