// The backward pass for a head_dim of up to 192 or 256 (draft).
#pragma once

#include <cstddef>

#include "kernels/cuda/sm90/wide_block.cuh"
#include "kernels/cuda/sm90/wide_carrier.cuh"
#include "kernels/cuda/sm90/wide_consumers.cuh"
#include "kernels/cuda/sm90/wide_producer.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
__device__ __forceinline__ void prepare_barriers(WideShared<Element, Tiling>& shared) {
  constexpr int kWarps = kWarpgroup / kWarp, kAllWarps = Tiling::kConsumers * kWarps;  // of consumers
  barrier_init(shared.keys_full, 1);
  barrier_init(shared.keys_empty, kAllWarps);
  barrier_init(shared.landed, 1);
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
