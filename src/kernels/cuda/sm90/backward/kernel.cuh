// The backward pass of one block of key-values on Hopper's tensor cores, for a head_dim of up to 64 or 128. It means
// what the portable kernel means (kernels/cuda/portable/backward/kernel.cuh), step by step the same products with the
// scores transposed:
//
//   S^T = K Q^T             P^T = 2^(S^T scale log2(e) - lse log2(e))        0 where a query does not see a key
//   dP^T = V dO^T           dS^T = P^T (dP^T - delta)
//   dV += P^T dO            dK += dS^T Q            dQ += dS K               dK and dQ times the scale when they leave
//
// A thread block takes tiles of 128 keys of a KV head, one after the other, by tickets. K and V of a tile stay in
// shared memory and dK and dV in registers, while the query tiles that see these keys pass by, each with every query
// head of the group. Three warpgroups of 128 threads have roles, joined by barriers in shared memory:
//
//   producer, warp 0      finds the steps (backward_walk.cuh); copies Q and dO of a step into one of two stages,
//                         and K and V at the first step of a tile; brings lse, delta and, where not every query of the
//                         step sees every key, bits that say who sees whom (backward_producer.cuh)
//   producer, warps 1, 2  carriers, one a consumer: add its half of dQ in global memory, when it is its turn
//                         (backward_carrier.cuh)
//   consumers 0 and 1     have 64 keys each: S^T and dP^T, hence P^T and dS^T in registers, which are the left operands
//                         of their dV and dK as they lie. dS goes through shared memory, for dQ needs all 128 keys: a
//                         consumer computes half of dQ, 64 x 64 (backward_consumer.cuh)
//
// The barriers, and all that they guard, are in backward_block.cuh. A step of a consumer, whose S^T has begun in the
// step before, and what runs beside it on the tensor cores:
//
//   wait for dO     dP^T begins                           | S^T; the other consumer's dV, dK, dQ
//   wait for S^T    P^T                                   | dP^T; the other's
//   wait for dP^T   dS^T; both rounded, dS^T shared       | the other's
//   wait for the    dV, dK of this step and dQ of the step before begin
//     token
//   wait for dK     S^T of the next step begins
//   wait for dQ     the token is passed; dQ to its carrier | S^T; the other's dV, dK, dQ
//
// dQ lags a step behind, so that a consumer never waits for dS that the other has only just begun: they run in opposite
// phases, one on the tensor cores while the other is busy with powers and roundings. The token keeps them apart.
//
// What limits is shared memory more than the tensor cores: a step reads and writes it for nearly as many cycles as it
// has. So K is in registers as far as there are any, and whatever goes there goes without conflicts of banks.
//
// Whose turn it is to add to dQ follows the portable kernel's rule, and so does the proof that every wait ends: tickets
// rise, a block works on one tile at a time and in the order of its tickets, so the lowest unfinished ticket is being
// worked on and waits for nobody.
#pragma once

#include <cstddef>

#include "kernels/cuda/sm90/backward/block.cuh"
#include "kernels/cuda/sm90/backward/carrier.cuh"
#include "kernels/cuda/sm90/backward/consumer.cuh"
#include "kernels/cuda/sm90/backward/producer.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
__device__ __forceinline__ void prepare_barriers(BackwardShared<Element, Tiling>& shared) {
  constexpr int kWarps = kWarpgroup / kWarp, kAllWarps = Tiling::kConsumers * kWarps;  // of consumers
  barrier_init(shared.keys_full, 1);
  barrier_init(shared.keys_empty, kAllWarps);
  for (int i = 0; i < Tiling::kQueryStages; ++i) {
    barrier_init(shared.rows_full[i], 1);
    barrier_init(shared.query_full[i], 1);
    barrier_init(shared.query_empty[i], kAllWarps);
  }
  for (int i = 0; i < Tiling::kStages; ++i) {
    barrier_init(shared.grad_out_full[i], 1);
    barrier_init(shared.grad_out_empty[i], kAllWarps);
    barrier_init(shared.scores_full[i], kAllWarps);
    barrier_init(shared.scores_empty[i], kAllWarps);
  }
  for (int i = 0; i < Tiling::kConsumers; ++i) {
    barrier_init(shared.grad_query_full[i], kWarps);
    barrier_init(shared.grad_query_empty[i], 1);
  }
  fence_barrier_init();
}

template <typename Element, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    attend_backward_kernel(const __grid_constant__ BackwardArgs args) {
  using Shared = BackwardShared<Element, Tiling>;
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
    if (warp == 0) BackwardProducer<Element, Tiling>(args, shared).run();
    if (warp == 1 || warp == 2) BackwardCarrier<Element, Tiling>(args, shared, warp - 1).run();
  } else {
    more_registers<Tiling::kConsumerRegisters>();
    BackwardConsumer<Element, Tiling>(args, shared, warp / (kWarpgroup / kWarp) - 1).run();
  }
}

}  // namespace orrery::kernels::cuda::sm90
