// A carrier of the Hopper backward kernel (attend_backward.cuh): one warp for each consumer, which takes the half of dQ
// that the consumer has left in shared memory and has the copy unit add it in global memory, when it is its turn.
#pragma once

#include <cstdint>

#include "kernels/cuda/sm90/backward_block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class BackwardCarrier {
  using Shared = BackwardShared<Element, Tiling>;

 public:
  __device__ __forceinline__ BackwardCarrier(const BackwardArgs& args, Shared& shared, int consumer)
      : args_(args), shared_(shared), consumer_(consumer) {}

  // By the whole warp.
  __device__ __forceinline__ void run() {
    const int lane = thread_index() % kWarp;
    for (Ring<1> ring;; ++ring.number) {
      barrier_wait(shared_.grad_query_full[consumer_], ring.full());
      const BackwardStep now = shared_.step(ring.number);
      if (now.tile < 0) break;
      std::int32_t* turn = nullptr;
      if (args_.turns != nullptr) {
        turn = turn_of(now);
        if (lane == 0) wait_for_turn(turn, now.turn * Tiling::kConsumers);
        __syncwarp();
      }
      const std::int32_t row = now.tile * Tiling::kQueries + (Tiling::kHalvesAreRows ? consumer_ * 64 : 0);
      const std::int32_t column = Tiling::kHalvesAreRows ? 0 : consumer_ * 64;
      if (lane == 0) {
#pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          reduce_box(&args_.grad_query, shared_address(shared_.grad_query[consumer_].panels[panel]),
                     column + panel * Shared::kGradColumns, row, now.head, now.batch);
        }
      }
      bulk_commit();
      bulk_wait_read<0>();
      arrive_as_warp(shared_.grad_query_empty[consumer_]);
      if (turn != nullptr) {
        bulk_wait<0>();
        __syncwarp();
        if (lane == 0) release_turn(turn);
      }
    }
    bulk_wait<0>();
  }

 private:
  __device__ __forceinline__ std::int32_t* turn_of(const BackwardStep& step) const {
    const std::int64_t line = static_cast<std::int64_t>(step.batch) * args_.kv_heads * args_.group + step.head;
    return args_.turns + line * ((args_.query_len - 1) / Tiling::kQueries + 1) + step.tile;
  }

  const BackwardArgs& args_;
  Shared& shared_;
  const int consumer_;
};

}  // namespace orrery::kernels::cuda::sm90
