// Attention on a share of a device's multiprocessors. The rest stays free, so that a kernel which communicates, begun
// while attention runs, finds room at once.
//
// Fewer blocks would not do. The hardware spreads them: where two fit on a multiprocessor, a grid of half as many as
// fit sits on every one. And a block of NCCL's needs nearly all of a multiprocessor. So the grid is as large as the
// device takes, and the first act of a block is to ask for its multiprocessor. The first `sms` multiprocessors that are
// asked for join; blocks on the others end at once. Blocks that stay draw tickets, one a tile, until there are none.
// The first block that asks always joins, so all tickets are drawn wherever blocks happen to run. A ticket means what
// the number of a block means without a margin, so that no bit of a result depends on the margin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/check.hpp"
#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/common/ptx.cuh"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {

inline constexpr int kSmStates = 510;  // multiprocessors whose numbers agree modulo this join or stay away together

struct SmCounters {
  std::int32_t asked;  // multiprocessors, the first block of each
  std::int32_t tickets;
  std::int32_t states[kSmStates];
};
static_assert(sizeof(SmCounters) == kSmShareBytes);

struct SmShare {
  SmCounters* counters;  // zeros when the kernel begins
  std::int32_t sms;      // that join
  std::int32_t tickets;  // that there are
};

// Whether this block's multiprocessor joins. By one thread.
__device__ inline bool joins(const SmShare& share) {
  enum State : std::int32_t { kNew, kAsking, kJoins, kStaysAway };
  unsigned sm;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  std::int32_t* const state = &share.counters->states[sm % kSmStates];
  std::int32_t now = atomicCAS(state, kNew, kAsking);
  if (now == kNew) {
    now = atomicAdd(&share.counters->asked, 1) < share.sms ? kJoins : kStaysAway;
    atomicExch(state, now);
  }
  while (now == kAsking) now = atomicAdd(state, 0);  // the block that asks is running
  return now == kJoins;
}

// Calls `work` for one ticket after another, which lies in `ticket`, in shared memory. Kernels are compiled with and
// without this loop, for it costs registers.
template <typename Work>
__device__ __forceinline__ void for_each_ticket(const SmShare& share, std::int32_t& ticket, const Work& work) {
  if (thread_index() == 0) ticket = joins(share) ? atomicAdd(&share.counters->tickets, 1) : share.tickets;
  while (true) {
    __syncthreads();
    if (ticket >= share.tickets) return;
    work();
    __syncthreads();  // all are done with the ticket and with what lies in shared memory
    if (thread_index() == 0) ticket = atomicAdd(&share.counters->tickets, 1);
  }
}

// Launches a kernel that has one block a ticket, or with a margin as many blocks as fit on the device, `blocks_per_sm`
// on a multiprocessor: launch(blocks) or launch(blocks, share). `counters` is scratch of kSmShareBytes.
template <typename Launch>
void launch_tickets(std::int64_t tickets, int sm_margin, int blocks_per_sm, std::byte* counters,
                    device::StreamHandle stream, const Launch& launch) {
  if (sm_margin == 0) {
    launch(static_cast<unsigned>(tickets));
    ORRERY_CUDA_CHECK(cudaGetLastError());
    return;
  }
  int device = 0, sms = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  ORRERY_CHECK(0 < sm_margin && sm_margin < sms, "a margin of ", sm_margin, " of ", sms, " multiprocessors");
  const int blocks = sms * blocks_per_sm;
  ORRERY_CHECK(tickets <= INT32_MAX - blocks, tickets, " tickets");
  ORRERY_CUDA_CHECK(cudaMemsetAsync(counters, 0, kSmShareBytes, stream));
  launch(static_cast<unsigned>(blocks),
         SmShare{reinterpret_cast<SmCounters*>(counters), sms - sm_margin, static_cast<std::int32_t>(tickets)});
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
