// The launch of the Hopper backward kernel; what its instances include.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <type_traits>

#include "device/check.hpp"
#include "kernels/cuda/sm90/attend_backward.cuh"
#include "kernels/cuda/sm90/attend_backward.hpp"
#include "kernels/cuda/sm90/attend_backward_wide.cuh"
#include "kernels/cuda/sm90/tensor_map.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {

using BackwardKernel = void (*)(BackwardArgs);

// `kernel` has the shared memory that Shared says, and so many turns for a query tile.
template <typename Tiling, typename Shared>
void launch_backward(BackwardKernel kernel, int turns, const AttendBackward& call, device::StreamHandle stream) {
  constexpr int kBytes = static_cast<int>(sizeof(Shared));
  static_assert(kBytes <= 227 << 10, "a block of sm_90 has 227 KiB of shared memory");
  const std::int64_t query_tiles = (call.query.tokens - 1) / Tiling::kQueries + 1;
  const std::int64_t key_tiles = (call.key.tokens - 1) / Tiling::kKeys + 1;
  const std::int64_t tickets = key_tiles * call.key.batch * call.key.heads;
  ORRERY_CHECK(tickets <= INT_MAX / 2 && call.query.tokens <= INT_MAX - Tiling::kQueries &&
                   call.key.tokens <= INT_MAX - Tiling::kKeys,
               call.key.batch * call.key.heads, " heads of ", call.query.tokens, " queries and ", call.key.tokens,
               " keys");
  auto* const counters = reinterpret_cast<std::int32_t*>(call.scratch);

  BackwardArgs args{};
  args.query = tensor_map(call.query, Tiling::kQueries);
  args.grad_out = tensor_map(call.grad_out, Tiling::kQueries);
  args.key = tensor_map(call.key, Tiling::kKeys);
  args.value = tensor_map(call.value, Tiling::kKeys);
  args.lse = rows_of<const float>(call.lse);
  args.delta = rows_of<const float>(call.delta);
  args.grad_query = float_map(call.grad_query, 64);
  args.grad_key = rows_of<float>(call.grad_key);
  args.grad_value = rows_of<float>(call.grad_value);
  args.ranges = call.key_ranges.rows;
  args.bounds = call.key_ranges.tiles;
  args.batch = static_cast<std::int32_t>(call.query.batch);
  args.kv_heads = static_cast<std::int32_t>(call.key.heads);
  args.group = static_cast<std::int32_t>(call.query.heads / call.key.heads);
  args.query_len = static_cast<std::int32_t>(call.query.tokens);
  args.key_len = static_cast<std::int32_t>(call.key.tokens);
  args.width = static_cast<std::int32_t>(call.query.width);
  // Blocks that are at work at the same time want the same Q, dO and dQ, near enough to find them in L2: by
  // measurement, while those of a section are at most so many bytes (docs/performance.md).
  constexpr std::int64_t kSectionBytes = 160 << 20, kElementBytes = 2 + 2 + 4;
  const std::int64_t head_bytes = call.query.tokens * args.group * call.query.width * kElementBytes;
  args.section = static_cast<std::int32_t>(
      std::clamp<std::int64_t>(kSectionBytes / head_bytes, 1, call.key.batch * call.key.heads));
  args.scale = call.scale;
  args.scale_log2 = call.scale * kLog2E;
  args.ticket = counters;
  args.turns = call.deterministic ? counters + 1 : nullptr;

  int device = 0, processors = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  // A block fills a multiprocessor, so that a smaller grid leaves whole ones free.
  ORRERY_CHECK(call.sm_margin >= 0 && call.sm_margin < processors, "a margin of ", call.sm_margin, " of ", processors,
               " multiprocessors");
  const std::int64_t blocks = std::min<std::int64_t>(processors - call.sm_margin, tickets);
  args.tickets = static_cast<std::int32_t>(tickets);
  const std::int64_t counted = 1 + (call.deterministic ? turns * call.query.batch * call.query.heads * query_tiles : 0);

  ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  ORRERY_CUDA_CHECK(cudaMemsetAsync(counters, 0, static_cast<std::size_t>(counted) * sizeof *counters, stream));
  kernel<<<static_cast<unsigned>(blocks), Tiling::kThreads, kBytes, stream>>>(args);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

template <Dtype kDtype, int kDim>
void launch_attend_backward(const AttendBackward& call, device::StreamHandle stream) {
  using Element = std::conditional_t<kDtype == Dtype::bf16, __nv_bfloat16, __half>;
  if constexpr (kDim <= 128) {
    using Tiling = BackwardTiling<kDim>;
    launch_backward<Tiling, BackwardShared<Element, Tiling>>(attend_backward_kernel<Element, Tiling>, 1, call, stream);
  } else {
    using Tiling = WideTiling<kDim>;
    launch_backward<Tiling, WideShared<Element, Tiling>>(attend_backward_wide_kernel<Element, Tiling>, 2, call, stream);
  }
}

}  // namespace orrery::kernels::cuda::sm90
