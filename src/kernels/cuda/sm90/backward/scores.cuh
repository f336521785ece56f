// What the consumers of Hopper's backward kernels do with scores and gradients in registers, as products leave them
// (sm90/ptx.cuh): of the transposed scores a lane has rows, which are keys, first_row() and the eighth behind it, and
// of every eight columns, which are queries, first_column() and the next.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/common/backward_args.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/sm90/backward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

__device__ __forceinline__ int first_row() {
  return thread_index() % kWarpgroup / kWarp * 16 + thread_index() % kWarp / 4;
}
__device__ __forceinline__ int first_column() {
  return thread_index() % 4 * 2;
}

// P^T from S^T, of keys from `first_key` of the tile on.
template <typename StageRows, int kCount>
__device__ __forceinline__ void find_probabilities(float (&p)[kCount], const StageRows& rows, bool full, int first_key,
                                                   float scale_log2) {
  const int column = first_column();
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    const float2 lse = *reinterpret_cast<const float2*>(&rows.lse[column + j * 8]);
    p[4 * j] = fmaf(p[4 * j], scale_log2, -lse.x);
    p[4 * j + 1] = fmaf(p[4 * j + 1], scale_log2, -lse.y);
    p[4 * j + 2] = fmaf(p[4 * j + 2], scale_log2, -lse.x);
    p[4 * j + 3] = fmaf(p[4 * j + 3], scale_log2, -lse.y);
  }
  if (!full) {
    const int key = first_key + first_row();
    const std::uint32_t* words = &rows.seen[key / 32][column];
    const std::uint32_t one = 1u << key % 32, eighth = one << 8;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      const uint2 seen = *reinterpret_cast<const uint2*>(words + j * 8);
      if ((seen.x & one) == 0) p[4 * j] = -INFINITY;
      if ((seen.y & one) == 0) p[4 * j + 1] = -INFINITY;
      if ((seen.x & eighth) == 0) p[4 * j + 2] = -INFINITY;
      if ((seen.y & eighth) == 0) p[4 * j + 3] = -INFINITY;
    }
  }
#pragma unroll
  for (float& x : p) x = exp2_approx(x);
}

// Of dS^T from dP^T: what P^T is multiplied by.
template <typename Element>
__device__ __forceinline__ float minus_delta(float dp, float delta, float scale) {
  return kScaledScores<Element> ? fmaf(dp, scale, -delta) : dp - delta;
}

// The 16 rows of a warp of a consumer, `first` the consumer's first, of a tile of keys become finite (nonfinite.cuh),
// where a mask may cut the tile.
template <typename Element, Infinity kInfinity, typename KeyTile>
__device__ __forceinline__ void make_keys_finite(const BackwardArgs& args, KeyTile& keys, int first) {
  constexpr int kRowChunks = kPanelRowBytes / static_cast<int>(sizeof(uint4));
  constexpr int kPanels = sizeof(keys.panels) / sizeof(keys.panels[0]);
  if (args.ranges == nullptr) return;
  bool found = false;
  const auto take = [&](auto& panel) {
    auto* const rows = reinterpret_cast<uint4*>(panel[first + thread_index() % kWarpgroup / kWarp * 16]);
    found |= make_finite<Element, kInfinity>(rows, 16 * kRowChunks, thread_index() % kWarp, kWarp);
  };
  if constexpr (kPanels <= 2) {
#pragma unroll
    for (auto& panel : keys.panels) take(panel);
  } else {  // wider heads leave no registers for more
#pragma unroll 1
    for (auto& panel : keys.panels) take(panel);
  }
  if (found) fence_async_proxy();
  __syncwarp();
}

// Of dS^T, rounded: 0 where P^T, rounded too, is. There the mask may hide the pair, and dS^T may be NaN
// (nonfinite.cuh).
template <typename Element, int kCount>
__device__ __forceinline__ void hide_unseen(std::uint32_t (&ds)[kCount], const std::uint32_t (&p)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (kCount <= 16) {  // as it compiles best
      if ((p[i] & 0x0000ffffu) == 0) ds[i] &= 0xffff0000u;
      if ((p[i] & 0xffff0000u) == 0) ds[i] &= 0x0000ffffu;
    } else {
      ds[i] &= nonzero_mask<Element>(p[i]);
    }
  }
}

// As the left operand of a product over the columns.
template <typename Element, int kCount>
__device__ __forceinline__ void pack_scores(std::uint32_t (&packed)[kCount], const float (&scores)[2 * kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) packed[i] = pack<Element>(scores[2 * i], scores[2 * i + 1]);
}

// What leaves as dQ or dK.
template <typename Element>
__device__ __forceinline__ float scaled(float grad, float scale) {
  return kScaledScores<Element> ? grad : grad * scale;
}

// put(row, x, y, z, w) for 64 rows of dK or dV, from `first_key` on, four columns at a time.
template <typename T, int kCount, typename Put>
__device__ __forceinline__ void put_keys(const BackwardArgs& args, const Rows<T>& into, const BackwardStep& now,
                                         std::int32_t first_key, const float (&grads)[kCount], const Put& put) {
  const int quad = thread_index() % 4;
  const bool odd = quad % 2 != 0;
  // Two lanes exchange halves of two blocks of 8 columns, so that each has four columns side by side: an even lane of
  // the first block, an odd one of the second.
  const int column = quad / 2 * 4 + (odd ? 8 : 0);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int32_t key = first_key + first_row() + half * 8;
    T* const row = into.at(now.work.batch, key, now.work.kv_head) + column;
#pragma unroll
    for (int j = 0; j < kCount / 4; j += 2) {
      const float *first = &grads[4 * j + 2 * half], *second = &grads[4 * j + 4 + 2 * half];
      const float x = __shfl_xor_sync(kAllLanes, odd ? first[0] : second[0], 1);
      const float y = __shfl_xor_sync(kAllLanes, odd ? first[1] : second[1], 1);
      const float4 sums = odd ? float4{x, y, second[0], second[1]} : float4{first[0], first[1], x, y};
      if (key < args.key_len && column + j * 8 < args.width) put(row + j * 8, sums.x, sums.y, sums.z, sums.w);
    }
  }
}

// 64 rows of one gradient leave for what this block alone owns; by reductions, where something is there already, which
// need not wait for it.
template <typename Element, int kCount>
__device__ __forceinline__ void leave_keys(const BackwardArgs& args, const Rows<float>& sums,
                                           const Rows<std::uint16_t>& rounded, const BackwardStep& now,
                                           std::int32_t first_key, const float (&grads)[kCount]) {
  switch (args.key_gradients) {
    case KeyGradients::add:
      return put_keys(args, sums, now, first_key, grads, reduce_add);
    case KeyGradients::store:
      return put_keys(args, sums, now, first_key, grads, store_four);
    case KeyGradients::round:
      return put_keys(args, rounded, now, first_key, grads,
                      [](std::uint16_t* into, float x, float y, float z, float w) {
                        round_four(reinterpret_cast<Element*>(into), x, y, z, w);
                      });
  }
}

}  // namespace orrery::kernels::cuda::sm90
