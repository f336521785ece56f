// The backward pass of one block of key-values on Hopper's tensor cores, for a head_dim of more than 128, up to 192 or
// 256. The products are those of backward/kernel.cuh; who does them differs, for dK and dV of 128 keys would fill the
// registers of a multiprocessor. A thread block takes tiles of 64 keys and of 64 queries, and its two consumers
// do different work:
//
//   producer, warp 0      as there: finds the steps, copies K, V and Q, brings rows (wide_producer.cuh)
//   producer, warp 3      copies dO, of which there may be room for one step only
//   producer, warps 1, 2  carriers, one a consumer: add its columns of dQ in global memory (wide_carrier.cuh)
//   value consumer        finds S^T = K Q^T and P^T, passes P^T to the key consumer, and has dV and the first columns
//                         of dQ
//   key consumer          finds dP^T = V dO^T and dS^T, shares dS^T, and has dK and the other columns of dQ
//                         (wide_consumers.cuh)
//
// P^T and dS^T of all 64 keys and queries are thus left operands as they lie in the registers of the one who needs
// them. P^T goes through shared memory as fp32, each thread's for the same thread of the other consumer; dS^T as
// elements, for dQ. A step, what each waits for in brackets:
//
//   value consumer                                       key consumer
//   S^T of the next step [Q], dV [dO] begin              [P^T] dS^T, shared
//   P^T of the next step, told                           dK [Q], 64 columns of dQ begin
//   [dS^T] 64 columns of dQ, to the carrier              to the carrier
//   as many again at 256                                 64 more begin, dP^T of the next step [dO] too; to the carrier
//
// So the value consumer is ahead by S^T and P^T, and neither needs a token to keep them apart. Shared memory
// bounds a step, not the tensor cores (docs/lab/hopper-backward.md). So the first columns of K and V, left operands of
// S^T and dP^T, stay in registers where some are left.
//
// Order and termination are as in backward/kernel.cuh.
#pragma once

#include <cstddef>

#include "kernels/cuda/sm90/backward_wide/block.cuh"
#include "kernels/cuda/sm90/backward_wide/carrier.cuh"
#include "kernels/cuda/sm90/backward_wide/consumers.cuh"
#include "kernels/cuda/sm90/backward_wide/producer.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
__device__ __forceinline__ void prepare_barriers(WideShared<Element, Tiling>& shared) {
  constexpr int kWarps = kWarpgroup / kWarp, kAllWarps = Tiling::kConsumers * kWarps;  // of consumers
  barrier_init(shared.keys_full, 1);
  barrier_init(shared.keys_empty, kAllWarps);
  for (Barrier& landed : shared.landed) barrier_init(landed, 1);
  for (int i = 0; i < Tiling::kQueryStages; ++i) {
    barrier_init(shared.rows_full[i], 1);
    barrier_init(shared.query_full[i], 1);
    barrier_init(shared.query_empty[i], kAllWarps);
  }
  for (int i = 0; i < Tiling::kGradOutStages; ++i) {
    barrier_init(shared.grad_out_full[i], 1);
    barrier_init(shared.grad_out_empty[i], kAllWarps);
  }
  barrier_init(shared.probabilities_full, kWarps);
  barrier_init(shared.probabilities_empty, kWarps);
  for (int i = 0; i < Tiling::kScoreStages; ++i) {
    barrier_init(shared.scores_full[i], kWarps);
    barrier_init(shared.scores_empty[i], kAllWarps);
  }
  for (int i = 0; i < Tiling::kConsumers; ++i) {
    for (int j = 0; j < WideShared<Element, Tiling>::kMostPlaces; ++j) {
      barrier_init(shared.grad_query_full[i][j], kWarps);
      barrier_init(shared.grad_query_empty[i][j], 1);
    }
  }
  fence_barrier_init();
}

template <typename Element, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    attend_backward_wide_kernel(const __grid_constant__ BackwardArgs args) {
  using Shared = WideShared<Element, Tiling>;
  extern __shared__ __align__(1024) std::byte memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);

  if (thread_index() == 0) {
    prepare_barriers(shared);
    for (const CUtensorMap* map : {&args.query, &args.grad_out, &args.key, &args.value, &args.grad_query}) {
      prefetch_map(map);
    }
  }
  __syncthreads();
  // The same in all lanes, and known to be.
  const int warp = __shfl_sync(kAllLanes, thread_index() / kWarp, 0);
  if (warp < kWarpgroup / kWarp) {
    fewer_registers<Tiling::kProducerRegisters>();
    if (warp == 0) WideProducer<Element, Tiling>(args, shared).run();
    if (warp == 1) WideCarrier<Element, Tiling, 0>(args, shared).run();
    if (warp == 2) WideCarrier<Element, Tiling, 1>(args, shared).run();
    if (warp == 3) WideProducer<Element, Tiling>(args, shared).run_grad_out();
  } else {
    more_registers<Tiling::kConsumerRegisters>();
    if (warp < 2 * kWarpgroup / kWarp) {
      ValueConsumer<Element, Tiling>(args, shared).run();
    } else {
      KeyConsumer<Element, Tiling>(args, shared).run();
    }
  }
}

}  // namespace orrery::kernels::cuda::sm90
