// The forward kernel of 16-bit tensors on Hopper, with the division of labour of FlashAttention-3 (Shah et al.,
// 2024). A block of threads stays on its multiprocessor and takes one tile of query rows of one head after the other.
// Its first warpgroup is the *producer*: one thread of it has the copy unit bring Q, and then the tiles of keys and
// values that these rows see, each into the oldest stage as soon as that is free, and so runs ahead into the next
// tile of rows. The others are *consumers* of 64 rows each. A visit of a consumer to a tile of keys:
//
//   S = Q K^T;  maxima, raised where scores are far above them;  P = 2^(S - maximum);  accumulator += P V
//
// What hides the exponentials are other products, a consumer's own and those of the others: it issues the next S and
// this P V together, and finds the next P while the tensor cores are busy with P V. So a consumer's registers hold the
// accumulator, P, and S or the P that it becomes, and a tile of keys is as wide as that allows.
//
//   consumer 0   | S0 | softmax | S1 P V0 | softmax | S2 P V1 | softmax |  ...
//   consumer 1        | S0 | softmax | S1 P V0 | softmax | S2 P V1 | softmax |  ...
//   consumer 2             | S0 | softmax | S1 P V0 | softmax | S2 P V1 |  ...
//
// The rest of the first warpgroup are *inspectors*. Values of a tile of keys that the mask cuts do not land with the
// consumers but with them, who make such a tile finite before it counts as full (nonfinite.cuh). They are ahead of the
// consumers as the copies are, so that nobody waits for them.
//
// Products of a warpgroup are issued hardly faster than they run, so what a visit costs a consumer is its products and
// its softmax, one after the other; with three consumers the tensor cores stay busy as long as both together take at
// most three times the products. Hence the care for the order of instructions in softmax().
#pragma once

#include "kernels/cuda/sm90/forward/consumer.cuh"
#include "kernels/cuda/sm90/forward/producer.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    attend_forward_kernel(const __grid_constant__ ForwardLaunch launch, const __grid_constant__ ForwardMaps maps) {
  using Shared = ForwardShared<Element, Tiling>;
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);

  const int warpgroup = __shfl_sync(kAllLanes, thread_index() / kWarpgroup, 0);
  if (thread_index() == 0) {
    constexpr int kConsumerWarps = Tiling::kConsumers * kWarpgroup / kWarp;
    for (int stage = 0; stage < Tiling::kQueryStages; ++stage) {
      barrier_init(shared.query_full[stage], 1);
      barrier_init(shared.query_empty[stage], kConsumerWarps);
    }
    for (int stage = 0; stage < Tiling::kStages; ++stage) {
      barrier_init(shared.key_full[stage], 1);
      barrier_init(shared.value_full[stage], kInspectors);
      barrier_init(shared.landed[stage], 1);
      barrier_init(shared.key_empty[stage], kConsumerWarps);
      barrier_init(shared.value_empty[stage], kConsumerWarps);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (warpgroup == 0) {
    fewer_registers<Tiling::kProducerRegisters>();
    if (thread_index() >= kWarp) {
      inspect_values(shared);
    } else if (elect_one()) {
      ForwardProducer<Element, Tiling>(shared, launch, maps).run();
    }
  } else {
    more_registers<Tiling::kConsumerRegisters>();
    ForwardConsumer<Element, Tiling>(shared, launch, warpgroup - 1).run();
  }
}

}  // namespace orrery::kernels::cuda::sm90
