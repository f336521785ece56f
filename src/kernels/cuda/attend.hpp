// The attention kernels of CUDA devices: one key-value block folded into a running state (forward), and one block's
// share of the three gradients (backward). They do what the host's kernels do (kernels/host/attend.hpp),
// with two additions. A block can be the first of its rows: then their state need not exist yet. And a block can be the
// last of its rows: then the same kernel divides and rounds them.
//
// The state of a query row:
//   row_max m      the largest score seen, in units of log 2 (score * scale * log2(e)); the fp32 kernels round m up
//                  to an integer, and Hopper's kernels may leave m up to 8 too low
//   row_sum l      sum of 2^(score - m)
//   accumulator a  sum of 2^(score - m) * value
// A row that has seen nothing has m = -inf, l = 0, a = 0. States never leave CUDA devices, so that the host's states,
// which count in natural units, need not agree.
//
// All tensors lie on the current device. 16-bit tensors: head_dim a multiple of 8 up to 256, the pointer and every
// stride a multiple of 16 bytes. fp32 tensors: any head_dim up to 256; these kernels are for validation, exact rather
// than fast. Nothing is allocated and nothing waits; all work is put on `stream`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "device/handles.hpp"
#include "kernels/cuda/key_ranges.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

inline constexpr std::size_t kSmShareBytes = 2048;  // counters of sm_share.cuh
inline constexpr std::size_t kForwardScratchBytes = kSmShareBytes;

// 16-bit tensors have kernels for every device since sm_80, and others for Hopper alone.
enum class Kernels : int {
  best,      // Hopper's where the device is one and they take the call
  portable,  // the first, on any device
};

struct AttendForward {
  TensorView query;             // [batch, query_len, heads, head_dim]    fp32, bf16 or fp16
  TensorView key, value;        // [batch, key_len, kv_heads, head_dim]   same dtype; heads % kv_heads == 0
  TensorView accumulator;       // [batch, query_len, heads, head_dim]    fp32
  TensorView row_max, row_sum;  // [batch, query_len, heads, 1]           fp32
  KeyRanges key_ranges;         // of the query_len rows; empty: every query sees every key
  float scale;                  // multiplies the scores
  bool first = false;           // the state is not read: as if it were empty
  bool last = false;            // the state is not written: out and lse are
  TensorView out;               // [batch, query_len, heads, head_dim]    the dtype of query; with `last`
  TensorView lse;               // [batch, query_len, heads, 1]           fp32, natural log; with `last`
  int sm_margin = 0;            // multiprocessors of the device to leave free; fewer than it has
  // kForwardScratchBytes bytes, 16-byte aligned, of any content; whichever kernel runs.
  std::byte* scratch = nullptr;
  Kernels kernels = Kernels::best;
};

struct AttendBackward {
  TensorView query, grad_out;  // [batch, query_len, heads, head_dim]    fp32, bf16 or fp16
  TensorView key, value;       // [batch, key_len, kv_heads, head_dim]
  TensorView lse, delta;  // [batch, query_len, heads, 1]           fp32: final lse (natural), rowsum(grad_out * out)
  TensorView grad_query;  // [batch, query_len, heads, head_dim]    fp32, added to
  TensorView grad_key, grad_value;  // [batch, key_len, kv_heads, head_dim] fp32, added to
  KeyRanges key_ranges;
  float scale;
  // The bits of grad_query do not depend on timing: blocks of keys add to it in one order. Costs some speed. The bits
  // of everything else never depend on timing.
  bool deterministic = true;
  // attend_backward_scratch_bytes() bytes, 16-byte aligned, of any content; whichever kernel runs.
  std::byte* scratch = nullptr;
  int sm_margin = 0;  // as in AttendForward
  Kernels kernels = Kernels::best;
  bool first = false;  // grad_key and grad_value are not read: as if they were zeros
  bool last = false;   // what is left in them means nothing: their sums go to key_out and value_out
  TensorView key_out = {}, value_out = {};  // [batch, key_len, kv_heads, head_dim]  the dtype of query; with `last`
};

// What a problem must be for these kernels; says in a sentence why not, or nothing. Takes the dtype and head_dim, and
// for a tensor its alignment.
const char* attend_refuses(Dtype dtype, std::int64_t head_dim);
bool attend_takes(const TensorView& tensor);  // pointer and strides
// Why the current device cannot run the backward pass of such a problem, though it takes the forward; or nothing.
std::string attend_backward_refuses(Kernels kernels, Dtype dtype, std::int64_t head_dim);

// Which kernels a call on the current device runs.
enum class KernelFamily : int { fp32, portable, hopper };
std::string_view to_string(KernelFamily family);
// Why the portable kernels serve such a call better, or alone, on a device that has kernels of its own; or nothing.
std::string_view forward_stays_portable(std::int64_t head_dim, float scale);
std::string_view backward_stays_portable(std::int64_t head_dim);
KernelFamily forward_kernel(Kernels kernels, Dtype dtype, std::int64_t head_dim, float scale);
KernelFamily backward_kernel(Kernels kernels, Dtype dtype, std::int64_t head_dim, float scale);

void attend_forward(const AttendForward& call, device::StreamHandle stream);

std::size_t attend_backward_scratch_bytes(std::int64_t batch, std::int64_t query_len, std::int64_t heads,
                                          std::int64_t key_len, std::int64_t kv_heads, std::int64_t head_dim);
// A row whose lse is -inf gets, and gives, no gradient.
void attend_backward(const AttendBackward& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
