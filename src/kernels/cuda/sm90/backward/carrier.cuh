// A carrier of the Hopper backward kernel (kernel.cuh): one warp for each consumer, which takes the half of dQ
// that the consumer has left in shared memory and has the copy unit add it in global memory, when it is its turn.
//
// The next in turn may add when this half is there, which takes as long as a trip to L2 and back. The carrier does not
// stay for that: it passes the turn on when the half of the next step has left, or when it would have to wait for a
// turn of its own. While it holds a turn it waits for nobody but its consumer, who needs only turns of steps before.
#pragma once

#include <cstdint>

#include "kernels/cuda/sm90/backward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class BackwardCarrier {
  using Shared = BackwardShared<Element, Tiling>;

 public:
  __device__ __forceinline__ BackwardCarrier(const BackwardArgs& args, Shared& shared, int consumer)
      : args_(args), shared_(shared), consumer_(consumer) {}

  // By the whole warp.
  __device__ __forceinline__ void run() {
    const bool leads = thread_index() % kWarp == 0;
    std::int32_t* held = nullptr;  // the turn to pass on when the last that has left is there
    for (Ring<1> ring;; ++ring.number) {
      barrier_wait(shared_.grad_query_full[consumer_], ring.full());
      const BackwardStep now = shared_.step(ring.number);
      if (now.tile < 0) break;
      if (leads) held = add(now, held);
      arrive_as_warp(shared_.grad_query_empty[consumer_]);
    }
    if (leads) {
      pass_on<0>(held);
      bulk_wait<0>();
    }
  }

 private:
  // Until the half has been read. Returns the turn to pass on when it is there.
  __device__ __forceinline__ std::int32_t* add(const BackwardStep& now, std::int32_t* held) {
    std::int32_t* turn = nullptr;
    if (args_.turns != nullptr) {
      turn = turn_of<Tiling>(args_, now);
      const std::int32_t before = now.turn * Tiling::kConsumers;
      if (turns_passed(turn) < before) {
        pass_on<0>(held);
        held = nullptr;
        wait_for_turn(turn, before);
      }
    }
    const std::int32_t row = now.tile * Tiling::kQueries + (Tiling::kHalvesAreRows ? consumer_ * 64 : 0);
    const std::int32_t column = Tiling::kHalvesAreRows ? 0 : consumer_ * 64;
#pragma unroll
    for (int panel = 0; panel < 2; ++panel) {
      reduce_box(&args_.grad_query, shared_address(shared_.grad_query[consumer_].panels[panel]),
                 column + panel * Shared::kGradColumns, row, now.head, now.work.batch);
    }
    bulk_commit();
    pass_on<1>(held);
    bulk_wait_read<0>();
    return turn;
  }

  // When all but the youngest kYounger halves are there.
  template <int kYounger>
  static __device__ __forceinline__ void pass_on(std::int32_t* turn) {
    if (turn == nullptr) return;
    bulk_wait<kYounger>();
    release_turn(turn);
  }

  const BackwardArgs& args_;
  Shared& shared_;
  const int consumer_;
};

}  // namespace orrery::kernels::cuda::sm90
