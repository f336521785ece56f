// The launch of the Hopper forward kernel; what its instances include.
#pragma once

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cstdint>

#include "device/check.hpp"
#include "kernels/cuda/sm90/attend_forward.cuh"
#include "kernels/cuda/sm90/tensor_map.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
void launch_forward(const AttendForward& call, device::StreamHandle stream) {
  using Shared = ForwardShared<Element, Tiling>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared));
  static_assert(kBytes <= 227 << 10, "a block of sm_90 has 227 KiB of shared memory");
  constexpr std::int64_t kSectionBytes = 32 << 20;  // of keys and values: most of an L2 cache
  constexpr float kLog2E = 0x1.715476p+0f;

  const std::int64_t query_tiles = (call.query.tokens + Tiling::kQueryTile - 1) / Tiling::kQueryTile;
  const std::int64_t units = call.query.batch * call.query.heads, tickets = units * query_tiles;
  ORRERY_CHECK(tickets <= INT_MAX && call.query.tokens <= INT_MAX - Tiling::kQueryTile &&
                   call.key.tokens <= INT_MAX - Tiling::kKeyTile,
               units, " heads of ", call.query.tokens, " queries and ", call.key.tokens, " keys");
  const std::int64_t group = call.query.heads / call.key.heads;
  const std::int64_t head_bytes = 2 * call.key.tokens * call.key.width * static_cast<std::int64_t>(sizeof(Element));
  const std::int64_t section_heads = std::max<std::int64_t>(kSectionBytes / std::max<std::int64_t>(head_bytes, 1), 1);

  ForwardLaunch launch;
  launch.call = call;
  launch.order = {static_cast<int>(query_tiles), static_cast<int>(units),
                  static_cast<int>(std::min(section_heads * group, units))};
  launch.scale_log2 = std::max(call.scale * kLog2E, FLT_MIN);
  launch.tickets = static_cast<std::int32_t>(tickets);
  launch.ticket = reinterpret_cast<std::int32_t*>(call.scratch);
  const ForwardMaps maps{tensor_map(call.query, Tiling::kQueryTile), tensor_map(call.key, Tiling::kKeyTile),
                         tensor_map(call.value, Tiling::kKeyTile)};

  int device = 0, processors = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  const std::int64_t blocks = std::min<std::int64_t>(processors, tickets);

  const auto kernel = attend_forward_kernel<Element, Tiling>;
  ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  ORRERY_CUDA_CHECK(cudaMemsetAsync(launch.ticket, 0, sizeof *launch.ticket, stream));
  kernel<<<static_cast<unsigned>(blocks), Tiling::kThreads, kBytes, stream>>>(launch, maps);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda::sm90
