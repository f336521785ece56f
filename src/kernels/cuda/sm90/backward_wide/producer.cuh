// The producer of the Hopper backward kernel for wide heads (attend_backward_wide.cuh): one warp, which draws tiles of
// keys, finds their steps and brings what these need, as far ahead as there are stages.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/common/backward_visits.cuh"
#include "kernels/cuda/sm90/backward/bring.cuh"
#include "kernels/cuda/sm90/backward_wide/block.cuh"

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
    bring_steps<Rule, Tiling::kQueryStages>(
        args_, shared_,
        [this](const BackwardStep& now, std::uint32_t number, const Ring<1>& tile) { put(now, number, tile); });
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
      for (int row = lane; row < kQueries; row += kWarp) dead |= !(rows.lse[row] < INFINITY);
      dead = __any_sync(kAllLanes, dead);
      const GradOutStage ring = {number};
      auto& grad_out = shared_.grad_out[ring.place()];
      Barrier &full = shared_.grad_out_full[ring.place()], &landed = shared_.landed[1];
      barrier_wait(shared_.grad_out_empty[ring.place()], ring.empty());
      if (elect_one()) {
        copy_tile(grad_out, args_.grad_out, dead ? landed : full, now.tile * kQueries, now.head, now.work.batch);
      }
      if (dead) bury(grad_out, rows, landed, full);
    }
  }

 private:
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
    for (int i = 0; i < kLaneRows; ++i) {
      if (first_query + i * kWarp + lane < args_.query_len) lse[i] = judged_lse(lse[i], delta[i]);
      dead |= !(lse[i] > -INFINITY);
    }
    dead = __any_sync(kAllLanes, dead);
    auto& query = shared_.query[stage.place()];
    Barrier& query_full = shared_.query_full[stage.place()];
    if (elect_one()) {
      copy_tile(query, args_.query, dead ? shared_.landed[0] : query_full, first_query, now.head, now.work.batch);
    }
    if (now.first) bring_keys(args_, shared_, now, tile);
    auto& rows = shared_.rows[stage.place()];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = i * kWarp + lane;
      const bool unseeing = lse[i] == -INFINITY;
      rows.lse[row] = unseeing ? INFINITY : lse[i] * kLog2E;
      rows.delta[row] = unseeing ? 0.0f : kScaledScores<Element> ? delta[i] * args_.scale : delta[i];
      if (!now.full) put_seen<Shared>(args_, rows, row, first_query + row, now.work.key_tile * kKeys);
    }
    if (lane == 0) shared_.step(number) = now;
    if (dead) bury(query, rows, shared_.landed[0], query_full);
    arrive_as_warp(shared_.rows_full[stage.place()]);
  }

  // Makes zeros of dead rows of what is to land, which have seen nothing and may hold anything, and of those that saw
  // what is not finite: what P = 0 is multiplied by must be finite. Then the tile is full.
  __device__ __forceinline__ void bury(typename Shared::QueryTile& tile, const typename Shared::StageRows& rows,
                                       Barrier& landed, Barrier& full) {
    const int lane = thread_index() % kWarp;
    barrier_wait(landed, landed_.full());
    ++landed_.number;
    __syncwarp();
    for (int row = 0; row < kQueries; ++row) {
      if (rows.lse[row] < INFINITY) continue;
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
