// The launch of the Hopper forward kernel; what its instances include.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "device/check.hpp"
#include "kernels/cuda/sm90/forward/attend_forward.hpp"
#include "kernels/cuda/sm90/forward/kernel.cuh"
#include "kernels/cuda/sm90/tensor_map.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {

// Multiprocessors that a call may use.
inline int processors_for(const AttendForward& call) {
  int device = 0, processors = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  ORRERY_CHECK(call.sm_margin >= 0 && call.sm_margin < processors, "a margin of ", call.sm_margin, " of ", processors,
               " multiprocessors");
  return processors - call.sm_margin;
}

// The tilings of a head_dim. Three consumers where registers allow it, for 192 rows share what is brought. `Small` is
// for launches of few tiles.
template <int kDim>
struct ForwardTilings;
template <>
struct ForwardTilings<64> {  // head_dim, keys, consumers, turns
  using Best = ForwardTiling<64, 128, 3, true>;
};
template <>
struct ForwardTilings<96> {
  using Best = ForwardTiling<96, 96, 3, false>;
};
template <>
struct ForwardTilings<128> {
  using Best = ForwardTiling<128, 80, 3, false>;
  using Small = ForwardTiling<128, 128, 2, false>;
};
template <>
struct ForwardTilings<192> {
  using Best = ForwardTiling<192, 112, 2, false>;
};
template <>
struct ForwardTilings<256> {
  using Best = ForwardTiling<256, 80, 2, false>;
};

template <typename Element, typename Tiling>
void launch_forward(const AttendForward& call, int processors, device::StreamHandle stream) {
  using Shared = ForwardShared<Element, Tiling>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared));
  static_assert(kBytes <= 227 << 10, "a block of sm_90 has 227 KiB of shared memory");
  constexpr float kLog2E = 0x1.715476p+0f;

  ForwardLaunch launch;
  launch.call = call;
  launch.order = forward_order<Tiling>(call);
  launch.scale_log2 = std::max(call.scale * kLog2E, FLT_MIN);
  launch.tickets = launch.order.blocks();
  launch.ticket = reinterpret_cast<std::int32_t*>(call.scratch);
  const ForwardMaps maps{tensor_map(call.query, Tiling::kQueryTile), tensor_map(call.key, Tiling::kKeyTile),
                         tensor_map(call.value, Tiling::kKeyTile)};

  // A block fills a multiprocessor, so that a smaller grid leaves whole ones free.
  const int blocks = std::min(processors, launch.tickets);

  const auto kernel = attend_forward_kernel<Element, Tiling>;
  ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  ORRERY_CUDA_CHECK(cudaMemsetAsync(launch.ticket, 0, sizeof *launch.ticket, stream));
  kernel<<<static_cast<unsigned>(blocks), Tiling::kThreads, kBytes, stream>>>(launch, maps);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

// Rows that a multiprocessor works through, when each takes as many tiles as the one that takes most.
template <typename Tiling>
std::int64_t rows_of_a_processor(const AttendForward& call, int processors) {
  const std::int64_t query_tiles = (call.query.tokens + Tiling::kQueryTile - 1) / Tiling::kQueryTile;
  const std::int64_t tiles = call.query.batch * call.query.heads * query_tiles;
  return (tiles + processors - 1) / processors * Tiling::kQueryTile;
}

template <Dtype kDtype, int kDim>
void launch_attend_forward(const AttendForward& call, device::StreamHandle stream) {
  using Element = std::conditional_t<kDtype == Dtype::bf16, __nv_bfloat16, __half>;
  const int processors = processors_for(call);
  if constexpr (kDim == 128) {
    using Best = ForwardTilings<kDim>::Best;
    using Small = ForwardTilings<kDim>::Small;
    constexpr double kSmallTakes = 1.06;  // times as long as Best for a row
    // A margin has no say, for the two differ in bits.
    const int all = processors + call.sm_margin;
    if (kSmallTakes * static_cast<double>(rows_of_a_processor<Small>(call, all)) <
        static_cast<double>(rows_of_a_processor<Best>(call, all))) {
      return launch_forward<Element, Small>(call, processors, stream);
    }
  }
  launch_forward<Element, typename ForwardTilings<kDim>::Best>(call, processors, stream);
}

}  // namespace orrery::kernels::cuda::sm90
