// The small kernels of the host, each one pass over memory: empty and finish a state, merge two, the delta of the
// backward pass, sums, casts and the ordered composition of scan states. None allocates; all run row by row over a
// thread pool.
#pragma once

#include "core/thread_pool.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels {

// accumulator [batch, tokens, heads, head_dim], row_max and row_sum [batch, tokens, heads, 1], all fp32.
struct State {
  TensorView accumulator, row_max, row_sum;
};

void clear(const TensorView& into, ThreadPool& pool);   // zeros, any dtype
void clear_state(const State& into, ThreadPool& pool);  // zeros, and row_max = -inf

// into = the state of both key sets. Two empty states merge to an empty one.
void merge(const State& into, const State& from, ThreadPool& pool);

// out = accumulator / row_sum in out's dtype and lse = row_max + log(row_sum); an empty row gives out 0 and lse -inf.
void normalize(const State& state, const TensorView& out, const TensorView& lse, ThreadPool& pool);

// delta[row] = sum over head_dim of out * grad_out, summed in fp32; shapes [batch, tokens, heads, head_dim] and
// width 1. +inf when a number of grad_out is not finite, NaN when one of out is not, as on CUDA devices.
void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, ThreadPool& pool);

void add(const TensorView& into, const TensorView& from, ThreadPool& pool);  // fp32, same shape
void copy(const TensorView& into, const TensorView& from,
          ThreadPool& pool);  // any dtype to any dtype, rounding to nearest even

// Scan states (S, a): S is [batch, tokens, heads, rows * columns] fp32, a the decay of each row, [batch, tokens, heads,
// rows]. into = into o earlier: S_into += diag(a_into) S_earlier, a_into *= a_earlier. The order matters.
struct ScanState {
  TensorView matrix, decay;
};
void clear_scan(const ScanState& into, ThreadPool& pool);  // the identity: zeros, and decay = 1
void compose(const ScanState& into, const ScanState& earlier, ThreadPool& pool);

}  // namespace orrery::kernels
