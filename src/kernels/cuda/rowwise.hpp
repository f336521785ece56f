// The small kernels of CUDA devices, each one pass over memory; they mean what the host's mean
// (kernels/host/rowwise.hpp). Tensors of any strides; 16-byte accesses where pointers and strides allow. All work is
// put on `stream`.
#pragma once

#include "device/handles.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

// accumulator [batch, tokens, heads, head_dim], row_max and row_sum [batch, tokens, heads, 1], all fp32; row_max counts
// in units of log 2 (kernels/cuda/attend.hpp).
struct State {
  TensorView accumulator, row_max, row_sum;
};

void clear(const TensorView& into, device::StreamHandle stream);   // zeros, any dtype
void clear_state(const State& into, device::StreamHandle stream);  // zeros, and row_max = -inf

// into = the state of both key sets. Two empty states merge to an empty one.
void merge(const State& into, const State& from, device::StreamHandle stream);

// out = accumulator / row_sum in out's dtype and lse = (row_max + log2(row_sum)) * ln 2; an empty row gives out 0 and
// lse -inf.
void normalize(const State& state, const TensorView& out, const TensorView& lse, device::StreamHandle stream);

// delta[row] = sum over head_dim of out * grad_out, summed in fp32 in a fixed order. +inf when a number of grad_out is
// not finite, NaN when one of out is not: attend_backward() tells the two apart.
void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, device::StreamHandle stream);
// And cleared = 0, fp32 of out's shape, in the same pass over memory.
void delta_and_clear(const TensorView& out, const TensorView& grad_out, const TensorView& delta,
                     const TensorView& cleared, device::StreamHandle stream);

void add(const TensorView& into, const TensorView& from, device::StreamHandle stream);  // fp32, same shape
// Any dtype to any dtype, rounding to nearest even.
void copy(const TensorView& into, const TensorView& from, device::StreamHandle stream);

// Scan states (S, a): S is [batch, tokens, heads, rows * columns] fp32, a the decay of each row, [batch, tokens, heads,
// rows]. into = into o earlier: S_into += diag(a_into) S_earlier, a_into *= a_earlier.
struct ScanState {
  TensorView matrix, decay;
};
void clear_scan(const ScanState& into, device::StreamHandle stream);  // the identity: zeros, and decay = 1
void compose(const ScanState& into, const ScanState& earlier, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
