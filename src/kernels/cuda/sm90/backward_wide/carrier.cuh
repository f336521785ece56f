// A carrier of the Hopper backward kernel for wide heads (attend_backward_wide.cuh): one warp for each consumer, which
// takes the columns of dQ that the consumer leaves in shared memory, 32 at a time, and has the copy unit add them in
// global memory, when it is its turn.
#pragma once

#include <cstdint>

#include "kernels/cuda/sm90/backward_wide/block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling, int kConsumer>
class WideCarrier {
  using Shared = WideShared<Element, Tiling>;

 public:
  __device__ __forceinline__ WideCarrier(const BackwardArgs& args, Shared& shared) : args_(args), shared_(shared) {}

  // By the whole warp.
  __device__ __forceinline__ void run() {
    constexpr int kFirstColumn = kConsumer == 0 ? 0 : Tiling::kPieces[0] * 64;
    constexpr int kPanels = Tiling::kPieces[kConsumer] * 64 / Shared::kGradColumns;
    const int lane = thread_index() % kWarp;
    constexpr int kPlaces = Tiling::kPlaces[kConsumer];
    Ring<kPlaces> place;
    for (std::uint32_t number = 0;; ++number) {
      barrier_wait(shared_.grad_query_full[kConsumer][place.place()], place.full());
      const BackwardStep now = shared_.step(number);
      if (now.tile < 0) break;
      std::int32_t* turn = nullptr;
      if (args_.turns != nullptr) {
        turn = turn_of<Tiling>(args_, now, kConsumer);  // the two consumers' columns have turns of their own
        if (lane == 0 && now.first) wait_for_turn(turn, now.turn);
        __syncwarp();
      }
#pragma unroll 1
      for (int i = 0; i < kPanels; ++i) {
        if (i > 0) barrier_wait(shared_.grad_query_full[kConsumer][place.place()], place.full());
        if (lane == 0) {
          reduce_box(&args_.grad_query, shared_address(&shared_.grads_of(kConsumer)[place.place()]),
                     kFirstColumn + i * Shared::kGradColumns, now.tile * Tiling::kQueries, now.head, now.work.batch);
        }
        bulk_commit();
        // The panel before has been read by now, or soon.
        if (i > 0) {
          bulk_wait_read<1>();
          arrive_as_warp(shared_.grad_query_empty[kConsumer][(place.number - 1) % kPlaces]);
        }
        if (i == kPanels - 1) {
          bulk_wait_read<0>();
          arrive_as_warp(shared_.grad_query_empty[kConsumer][place.place()]);
        }
        ++place.number;
      }
      if (turn != nullptr) {
        bulk_wait<0>();
        __syncwarp();
        if (lane == 0) {
          release_turn(turn);
          // The turn of the next step is waited for at once: the consumer knew of the step before it gave this one's
          // dQ.
          if (!now.last) {
            const BackwardStep next = shared_.step(number + 1);
            wait_for_turn(turn_of<Tiling>(args_, next, kConsumer), next.turn);
          }
        }
        __syncwarp();
      }
    }
    bulk_wait<0>();
  }

 private:
  const BackwardArgs& args_;
  Shared& shared_;
};

}  // namespace orrery::kernels::cuda::sm90
