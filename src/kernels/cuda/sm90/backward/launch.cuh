// The launch of the Hopper backward kernel; what its instances include.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <type_traits>

#include "device/check.hpp"
#include "kernels/cuda/sm90/backward/attend_backward.hpp"
#include "kernels/cuda/sm90/backward/kernel.cuh"
#include "kernels/cuda/sm90/backward_wide/kernel.cuh"
#include "kernels/cuda/sm90/tensor_map.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {

// How many KV heads are gone through side by side (TileOrder). Blocks walk over the queries at about the same pace, so
// that Q, dO and dQ, which those of a head have in common, are still in the L2 cache when the next one comes, if there
// are few heads. When dQ is added to in order, the blocks of a head follow one another a step or two apart, and heads
// are to be as many as it takes for this train to be short beside the steps of a tile.
template <typename Tiling>
std::int64_t section_heads(const AttendBackward& call, std::int64_t query_tiles, std::int64_t heads,
                           std::int64_t blocks) {
  constexpr std::int64_t kTileTrains = 16;
  const std::int64_t group = call.query.heads / call.key.heads;
  const std::int64_t element_bytes = static_cast<std::int64_t>(2 * size_of(call.query.dtype) + sizeof(float));
  const std::int64_t head_bytes = group * call.query.tokens * call.query.width * element_bytes;
  std::int64_t section = Tiling::kSectionBytes / std::max<std::int64_t>(head_bytes, 1);
  if (call.deterministic) section = std::max(section, kTileTrains * blocks / (group * query_tiles));
  return std::clamp<std::int64_t>(section, 1, heads);
}

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
  args.key_out = rows_of<std::uint16_t>(call.key_out);
  args.value_out = rows_of<std::uint16_t>(call.value_out);
  args.key_gradients = key_gradients_of(call);
  args.ranges = call.key_ranges.rows;
  args.bounds = call.key_ranges.tiles;
  args.batch = static_cast<std::int32_t>(call.query.batch);
  args.kv_heads = static_cast<std::int32_t>(call.key.heads);
  args.group = static_cast<std::int32_t>(call.query.heads / call.key.heads);
  args.query_len = static_cast<std::int32_t>(call.query.tokens);
  args.key_len = static_cast<std::int32_t>(call.key.tokens);
  args.width = static_cast<std::int32_t>(call.query.width);
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
  const std::int64_t heads = call.key.batch * call.key.heads;
  args.order = {static_cast<std::int32_t>(key_tiles), static_cast<std::int32_t>(heads),
                static_cast<std::int32_t>(section_heads<Tiling>(call, query_tiles, heads, blocks))};
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
