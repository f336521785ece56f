// The producer of the Hopper backward kernel (kernel.cuh): one warp, which draws tiles of keys, finds their
// steps and brings what these need, as far ahead as there are stages.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/common/backward_visits.cuh"
#include "kernels/cuda/sm90/backward/block.cuh"
#include "kernels/cuda/sm90/backward/bring.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class BackwardProducer {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  using Rule = VisitRule<kQueries, kKeys>;
  using Stage = Ring<Tiling::kStages>;
  using QueryStage = Ring<Tiling::kQueryStages>;
  using Shared = BackwardShared<Element, Tiling>;

 public:
  __device__ __forceinline__ BackwardProducer(const BackwardArgs& args, Shared& shared)
      : args_(args), shared_(shared) {}

  // By the whole warp.
  __device__ __forceinline__ void run() {
    bring_steps<Rule, Tiling::kQueryStages>(
        args_, shared_,
        [this](const BackwardStep& now, std::uint32_t number, const Ring<1>& tile) { put(now, number, tile); });
  }

 private:
  // Brings what a step needs.
  __device__ __forceinline__ void put(const BackwardStep& now, std::uint32_t number, const Ring<1>& tile) {
    constexpr int kLaneRows = kQueries / kWarp;
    const Stage stage = {number};
    const QueryStage queries = {number};
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
    barrier_wait(shared_.query_empty[queries.place()], queries.empty());
    if (elect_one()) {
      copy_tile(shared_.query[queries.place()], args_.query, shared_.query_full[queries.place()], first_query, now.head,
                now.work.batch);
    }
    if (now.first) bring_keys(args_, shared_, now, tile);
    barrier_wait(shared_.grad_out_empty[stage.place()], stage.empty());
    if (elect_one()) {
      copy_tile(shared_.grad_out[stage.place()], args_.grad_out, shared_.grad_out_full[stage.place()], first_query,
                now.head, now.work.batch);
    }
    auto& rows = shared_.rows[queries.place()];
    bool dead = false;
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = i * kWarp + lane, place = Shared::place_of(row);
      if (first_query + row < args_.query_len) lse[i] = judged_lse(lse[i], delta[i]);
      const bool unseeing = lse[i] == -INFINITY;
      dead |= !(lse[i] > -INFINITY);
      rows.lse[place] = unseeing ? INFINITY : lse[i] * kLog2E;
      rows.delta[place] = unseeing ? 0.0f : kScaledScores<Element> ? delta[i] * args_.scale : delta[i];
      if (!now.full) put_seen<Shared>(args_, rows, place, first_query + row, now.work.key_tile * kKeys);
    }
    if (lane == 0) shared_.step(number) = now;
    if (__any_sync(kAllLanes, dead)) bury(number);
    arrive_as_warp(shared_.rows_full[queries.place()]);
  }

  // Makes zeros of dead rows, which have seen nothing and may hold anything, and of those that saw what is not finite:
  // what P = 0 is multiplied by must be finite.
  __device__ __forceinline__ void bury(std::uint32_t number) {
    const Stage stage = {number};
    const QueryStage queries = {number};
    const int lane = thread_index() % kWarp;
    barrier_wait(shared_.query_full[queries.place()], queries.full());
    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    __syncwarp();
    for (int row = 0; row < kQueries; ++row) {
      if (shared_.rows[queries.place()].lse[Shared::place_of(row)] < INFINITY) continue;
#pragma unroll
      for (int panel = 0; panel < Shared::kPanels; ++panel) {
        reinterpret_cast<std::uint32_t*>(shared_.query[queries.place()].panels[panel][row])[lane] = 0;
        reinterpret_cast<std::uint32_t*>(shared_.grad_out[stage.place()].panels[panel][row])[lane] = 0;
      }
    }
    fence_async_proxy();
  }

  const BackwardArgs& args_;
  Shared& shared_;
};

}  // namespace orrery::kernels::cuda::sm90
