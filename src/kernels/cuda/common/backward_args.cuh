// What the backward kernel is given, and the few ways in which its blocks touch memory that they share.
#pragma once

#include <cstdint>

#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda {

inline constexpr float kLog2E = 1.44269504088896340736f;

// A TensorView of known type.
template <typename T>
struct Rows {
  T* data;
  std::int64_t batch_stride, token_stride, head_stride;

  __device__ __forceinline__ T* at(std::int32_t batch, std::int32_t token, std::int32_t head) const {
    return data + batch * batch_stride + token * token_stride + head * head_stride;
  }
};

template <typename T>
Rows<T> rows_of(const TensorView& tensor) {
  return {static_cast<T*>(tensor.data), tensor.batch_stride, tensor.token_stride, tensor.head_stride};
}

// What a block does with the dK and dV of its keys, which it alone owns.
enum class KeyGradients : std::int32_t {
  add,    // to grad_key and grad_value, without reading them: blocks wait for nothing at their end
  store,  // there, over whatever they hold
  round,  // into key_out and value_out, over whatever they hold
};

inline KeyGradients key_gradients_of(const AttendBackward& call) {
  if (call.last) return KeyGradients::round;
  return call.first ? KeyGradients::store : KeyGradients::add;
}

template <typename Element>
struct BackwardArgs {
  Rows<const Element> query, grad_out;  // [batch, query_len, heads, width]
  Rows<const Element> key, value;       // [batch, key_len, kv_heads, width]
  Rows<const float> lse, delta;         // [batch, query_len, heads]
  Rows<float> grad_query;               // [batch, query_len, heads, width]
  Rows<float> grad_key, grad_value;     // [batch, key_len, kv_heads, width]
  Rows<Element> key_out, value_out;     // [batch, key_len, kv_heads, width]
  KeyGradients key_gradients;
  const KeyRange* ranges;               // [query_len], or null
  const RangeBounds* bounds;            // [ceil(query_len / kRangeTile)], or null
  std::int32_t batch, kv_heads, group;  // heads = kv_heads * group
  std::int32_t query_len, key_len, width, query_tiles;
  float scale, scale_log2;    // scale_log2 = scale * log2(e)
  std::int32_t side_by_side;  // units, the last, whose tiles of keys take turns; a unit is a KV head of a sequence
  std::int32_t* ticket;       // how many blocks have begun; null: blocks know their number
  std::int32_t* turns;        // [batch, heads, query_tiles]: adders that are done; null when any order will do
};

// Four floats side by side, aligned to 16 bytes.
__device__ __forceinline__ void reduce_add(float* into, float x, float y, float z, float w) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(into), "f"(x), "f"(y), "f"(z), "f"(w)
               : "memory");
#else
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(into), "f"(x) : "memory");
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(into + 1), "f"(y) : "memory");
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(into + 2), "f"(z) : "memory");
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(into + 3), "f"(w) : "memory");
#endif
}

// The same four over whatever is there, as they are or rounded.
__device__ __forceinline__ void store_four(float* into, float x, float y, float z, float w) {
  *reinterpret_cast<float4*>(into) = {x, y, z, w};
}
template <typename Element>
__device__ __forceinline__ void round_four(Element* into, float x, float y, float z, float w) {
  *reinterpret_cast<uint2*>(into) = {pack<Element>(x, y), pack<Element>(z, w)};
}

// What was written before releasing is seen after waiting, by these threads and those they synchronise with.
__device__ __forceinline__ std::int32_t turns_passed(const std::int32_t* turn) {
  std::int32_t passed;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(passed) : "l"(turn) : "memory");
  return passed;
}
__device__ __forceinline__ void wait_for_turn(const std::int32_t* turn, std::int32_t mine) {
  while (turns_passed(turn) < mine) {
  }
}
__device__ __forceinline__ void release_turn(std::int32_t* turn) {
  asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(turn) : "memory");
}

}  // namespace orrery::kernels::cuda
