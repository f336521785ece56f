// The attention kernels of the host: one key-value block folded into a running state (forward), and one block's share
// of the three gradients (backward), after FlashAttention-2 (Dao, 2023) with the state kept un-normalised so that a
// block may arrive at any time. Which keys a query sees is given as index ranges within the block; positions, spans and
// masks are translated to these before a kernel is called, so a kernel knows nothing of them.
//
// The state of a query row: row_max m = the largest scaled score seen, rounded up to an integer; row_sum l =
// sum of exp(score - m); accumulator a = sum of exp(score - m) * value. A row that has seen nothing has m = -inf, l =
// 0, a = 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/thread_pool.hpp"
#include "kernels/key_range.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels {

struct AttendForward {
  TensorView query;             // [batch, query_len, heads, head_dim]    fp32, bf16 or fp16
  TensorView key, value;        // [batch, key_len, kv_heads, head_dim]   same dtype; heads % kv_heads == 0
  TensorView accumulator;       // [batch, query_len, heads, head_dim]    fp32, read and written
  TensorView row_max, row_sum;  // [batch, query_len, heads, 1]           fp32, read and written
  const KeyRange* key_ranges;   // [query_len], or null: every query sees every key
  float scale;                  // multiplies the scores
};

struct AttendBackward {
  TensorView query, grad_out;  // [batch, query_len, heads, head_dim]    fp32, bf16 or fp16
  TensorView key, value;       // [batch, key_len, kv_heads, head_dim]
  TensorView lse, delta;       // [batch, query_len, heads, 1]           fp32: final lse, and rowsum(grad_out * out)
  TensorView grad_query;       // [batch, query_len, heads, head_dim]    fp32, added to
  TensorView grad_key, grad_value;  // [batch, key_len, kv_heads, head_dim] fp32, added to
  const KeyRange* key_ranges;       // [query_len], or null
  float scale;
};

// Bytes of scratch the kernels need for a pool of `threads` threads; nothing else is allocated.
std::size_t attend_scratch_bytes(int head_dim, int threads, bool backward);

// head_dim from 1 to 256. `scratch` is 64-byte aligned and at least attend_scratch_bytes(). The bits of the result
// depend on neither the number of threads nor timing. A row whose lse is -inf gets, and gives, no gradient.
void attend_forward(const AttendForward& call, ThreadPool& pool, std::span<std::byte> scratch);
void attend_backward(const AttendBackward& call, ThreadPool& pool, std::span<std::byte> scratch);

}  // namespace orrery::kernels
