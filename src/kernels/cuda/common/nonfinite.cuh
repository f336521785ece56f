// Values that are not finite, behind a mask. A query has P = 0 for a key that it does not see, and 0 times NaN is NaN.
// Tensor cores multiply whole tiles, so one such value would reach every row of a tile that the mask cuts: other
// documents, and the past from the future. What the kernels multiply in such a tile is therefore made finite first.
// Rows that do see the value get it back by another way:
//
//   forward    V of a cut tile is made finite; at the end the accumulators of the rows that see one of the values
//              have it added (forward_rows.cuh).
//   backward   lse is NaN in rows that see such a value of Q or K, and delta in those that see one of V; there P or dS
//              is NaN where the pair is seen, and so are dQ, dK and dV. So K and V of a tile are made finite, and Q and
//              dO of a row whose lse is NaN become zeros. dO that is not finite shows as a delta of +inf (rowwise.hpp)
//              and makes its row's lse NaN. dS is 0 where the mask hides the pair, also where delta is not finite.
//
// dO that is not finite makes NaN of whole rows of dV; all else is not finite in those elements in which the definition
// is not. An infinite K counts as the largest number in dQ. Rows that see no such value keep their bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/state.cuh"

namespace orrery::kernels::cuda {

// The lse by which P of a row is found, from its lse and delta: NaN for one that has seen what is not finite, or is to
// give it.
__device__ __forceinline__ float judged_lse(float lse, float delta) {
  return lse == INFINITY || (delta == INFINITY && lse != -INFINITY) ? NAN : lse;
}

// Of 16-bit elements: the bits of the exponent, and the lowest of them.
template <typename Element>
inline constexpr std::uint32_t kExponent = std::is_same_v<Element, __nv_bfloat16> ? 0x7f80u : 0x7c00u;
template <typename Element>
inline constexpr std::uint32_t kLowestExponent = std::is_same_v<Element, __nv_bfloat16> ? 0x0080u : 0x0400u;

// Of a word of two elements: ones in the places of those that are not 0, NaN included.
template <typename Element>
__device__ __forceinline__ std::uint32_t nonzero_mask(std::uint32_t word) {
  using Pair = std::conditional_t<std::is_same_v<Element, __nv_bfloat16>, __nv_bfloat162, __half2>;
  std::uint32_t bits = word;
  return __hneu2_mask(reinterpret_cast<const Pair&>(bits), Pair{});
}

// Whether any element is NaN or infinite: an exponent of all ones, and no other, carries into the sign.
template <typename Element>
__device__ __forceinline__ bool any_nonfinite(const uint4& chunk) {
  constexpr std::uint32_t kMask = kExponent<Element> * 0x10001u, kOne = kLowestExponent<Element> * 0x10001u;
  const std::uint32_t carries =
      ((chunk.x & kMask) + kOne) | ((chunk.y & kMask) + kOne) | ((chunk.z & kMask) + kOne) | ((chunk.w & kMask) + kOne);
  return (carries & 0x80008000u) != 0;
}

// NaN becomes 0, an infinity 0 or the largest number of its sign.
enum class Infinity { zero, largest };
template <typename Element, Infinity kInfinity>
__device__ __forceinline__ std::uint32_t made_finite(std::uint32_t word) {
  std::uint32_t result = 0;
#pragma unroll
  for (int shift = 0; shift < 32; shift += 16) {
    std::uint32_t bits = word >> shift & 0xffffu;
    if ((bits & kExponent<Element>) == kExponent<Element>) {
      const bool infinite = kInfinity == Infinity::largest && (bits & 0x7fffu) == kExponent<Element>;
      bits = infinite ? (bits & 0x8000u) | (kExponent<Element> - 1) : 0;
    }
    result |= bits << shift;
  }
  return result;
}

// Makes `count` chunks of shared memory finite, which these threads share, and says whether any was not.
template <typename Element, Infinity kInfinity>
__device__ __forceinline__ bool make_finite(uint4* chunks, int count, int thread, int threads) {
  bool found = false;
#pragma unroll 4
  for (int i = thread; i < count; i += threads) found |= any_nonfinite<Element>(chunks[i]);
  if (!__any_sync(kAllLanes, found)) return false;
#pragma unroll 1
  for (int i = thread; i < count; i += threads) {
    const uint4 chunk = chunks[i];
    chunks[i] = {made_finite<Element, kInfinity>(chunk.x), made_finite<Element, kInfinity>(chunk.y),
                 made_finite<Element, kInfinity>(chunk.z), made_finite<Element, kInfinity>(chunk.w)};
  }
  return true;
}

}  // namespace orrery::kernels::cuda
