// The launch of the backward kernel; what its instances include.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "device/check.hpp"
#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "kernels/cuda/portable/backward/kernel.cuh"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {

template <typename Element, typename Tiling>
inline constexpr int kSharedBytes = static_cast<int>(sizeof(typename BackwardBlock<Element, Tiling>::Shared));

// How many units go side by side at the end. Under a causal mask a lower tile of keys sees more queries: a unit begins
// with its longest blocks and ends with its shortest. Where a device takes the blocks of several units at a time, the
// long ones of the last would begin late; so the tiles of the last units take turns, four times what it takes.
inline std::int64_t units_at_the_end(std::int64_t units, std::int64_t key_tiles, int blocks_per_sm) {
  int device = 0, sms = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  return std::min(units, 4 * sms * blocks_per_sm / key_tiles);
}

template <typename Element, typename Tiling>
void launch_tiling(const AttendBackward& call, device::StreamHandle stream) {
  auto* counters = reinterpret_cast<std::int32_t*>(call.scratch + kSmShareBytes);
  const std::int64_t query_tiles = (call.query.tokens - 1) / Tiling::kQueries + 1;
  const std::int64_t key_tiles = (call.key.tokens - 1) / Tiling::kKeys + 1, units = call.query.batch * call.key.heads;
  const std::int64_t blocks = key_tiles * units;
  ORRERY_CHECK(blocks <= INT32_MAX, "a grid of ", blocks, " blocks");
  ORRERY_CHECK(call.first || !call.last, "sums of which a part is there already are not rounded here");
  // In turns all go side by side: then fewer blocks wait for one another.
  const std::int64_t side_by_side =
      call.deterministic ? units : units_at_the_end(units, key_tiles, Tiling::kBlocksPerProcessor);
  const BackwardArgs<Element> args = {rows_of<const Element>(call.query),
                                      rows_of<const Element>(call.grad_out),
                                      rows_of<const Element>(call.key),
                                      rows_of<const Element>(call.value),
                                      rows_of<const float>(call.lse),
                                      rows_of<const float>(call.delta),
                                      rows_of<float>(call.grad_query),
                                      rows_of<float>(call.grad_key),
                                      rows_of<float>(call.grad_value),
                                      rows_of<Element>(call.key_out),
                                      rows_of<Element>(call.value_out),
                                      key_gradients_of(call),
                                      call.key_ranges.rows,
                                      call.key_ranges.tiles,
                                      static_cast<std::int32_t>(call.query.batch),
                                      static_cast<std::int32_t>(call.key.heads),
                                      static_cast<std::int32_t>(call.query.heads / call.key.heads),
                                      static_cast<std::int32_t>(call.query.tokens),
                                      static_cast<std::int32_t>(call.key.tokens),
                                      static_cast<std::int32_t>(call.query.width),
                                      static_cast<std::int32_t>(query_tiles),
                                      call.scale,
                                      call.scale * kLog2E,
                                      static_cast<std::int32_t>(side_by_side),
                                      call.deterministic ? counters : nullptr,
                                      call.deterministic ? counters + 1 : nullptr};

  constexpr int kBytes = kSharedBytes<Element, Tiling>;
  if (call.deterministic) {
    const std::int64_t counted = 1 + call.query.batch * call.query.heads * query_tiles;
    ORRERY_CUDA_CHECK(cudaMemsetAsync(counters, 0, static_cast<std::size_t>(counted) * sizeof *counters, stream));
  }
  launch_tickets(blocks, call.sm_margin, Tiling::kBlocksPerProcessor, call.scratch, stream,
                 [&](unsigned grid, auto... share) {
                   constexpr auto kernel = backward_kernel<Element, Tiling, decltype(share)...>;
                   ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
                   ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                          cudaSharedmemCarveoutMaxShared));
                   kernel<<<grid, Tiling::kThreads, kBytes, stream>>>(args, share...);
                 });
}

template <Dtype kDtype, int kDim>
void launch_attend_backward(const AttendBackward& call, device::StreamHandle stream, BackwardTiles tiles) {
  using Element = std::conditional_t<kDtype == Dtype::bf16, __nv_bfloat16, __half>;
  using Wide = typename BackwardTilings<kDim>::Wide;
  using Narrow = typename BackwardTilings<kDim>::Narrow;
  constexpr int kWideBytes = kSharedBytes<Element, Wide>, kNarrowBytes = kSharedBytes<Element, Narrow>;
  static_assert(kWideBytes <= kWideSharedBytes, "a block of sm_80 has 163 KB of shared memory");
  static_assert(kDim > kNarrowHeadDim || kNarrowBytes <= kNarrowSharedBytes, "a block of sm_86 has 99 KB");

  int device = 0, available = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&available, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const bool wide = tiles == BackwardTiles::wide || (tiles == BackwardTiles::fitting && kWideBytes <= available);
  const int needed = wide ? kWideBytes : kNarrowBytes;
  if (needed > available) {
    fail(ErrorCode::resource, "the backward pass at head_dim ", call.query.width, " needs ", needed,
         " bytes of shared memory a block, this device has ", available);
  }
  wide ? launch_tiling<Element, Wide>(call, stream) : launch_tiling<Element, Narrow>(call, stream);
}

}  // namespace orrery::kernels::cuda
