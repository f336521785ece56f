// The small kernels, each one pass over memory: empty and finish a state, merge two, the delta of the backward pass,
// sums, casts and the ordered composition of scan states. On hosts they run row by row over a pool of threads; on CUDA
// devices they are put on a stream, take tensors of any strides and use 16-byte accesses where pointers and strides
// allow. Both mean the same, and none allocates. apply() is how backends come to them, whatever the operation.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "core/thread_pool.hpp"
#include "device/handles.hpp"
#include "orrery/error.hpp"
#include "orrery/operations.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels {

// accumulator [batch, tokens, heads, head_dim], row_max and row_sum [batch, tokens, heads, 1], all fp32. On CUDA
// devices row_max counts in units of log 2 (kernels/cuda/attend.hpp).
struct State {
  TensorView accumulator, row_max, row_sum;
};

// Scan states (S, a): S is [batch, tokens, heads, rows * columns] fp32, a the decay of each row, [batch, tokens, heads,
// rows].
struct ScanState {
  TensorView matrix, decay;
};

void clear(const TensorView& into, ThreadPool& pool);      // zeros, any dtype
void clear_state(const State& into, ThreadPool& pool);     // zeros, and row_max = -inf
void clear_scan(const ScanState& into, ThreadPool& pool);  // the identity: zeros, and decay = 1

// into = the state of both key sets. Two empty states merge to an empty one.
void merge(const State& into, const State& from, ThreadPool& pool);

// out = accumulator / row_sum in out's dtype and lse = row_max + log(row_sum); an empty row gives out 0 and lse -inf.
void normalize(const State& state, const TensorView& out, const TensorView& lse, ThreadPool& pool);

// delta[row] = sum over head_dim of out * grad_out, summed in fp32 in a fixed order; shapes [batch, tokens, heads,
// head_dim] and width 1. +inf when a number of grad_out is not finite, NaN when one of out is not: attend_backward()
// tells the two apart.
void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, ThreadPool& pool);
// And cleared = 0, fp32 of out's shape; on CUDA devices in the same pass over memory.
void delta_and_clear(const TensorView& out, const TensorView& grad_out, const TensorView& delta,
                     const TensorView& cleared, ThreadPool& pool);

void add(const TensorView& into, const TensorView& from, ThreadPool& pool);  // fp32, same shape
// Any dtype to any dtype, rounding to nearest even.
void copy(const TensorView& into, const TensorView& from, ThreadPool& pool);

// into = into o earlier: S_into += diag(a_into) S_earlier, a_into *= a_earlier. The order matters.
void compose(const ScanState& into, const ScanState& earlier, ThreadPool& pool);

namespace cuda {

using kernels::ScanState, kernels::State;

void clear(const TensorView& into, device::StreamHandle stream);
void clear_state(const State& into, device::StreamHandle stream);
void clear_scan(const ScanState& into, device::StreamHandle stream);
void merge(const State& into, const State& from, device::StreamHandle stream);
void normalize(const State& state, const TensorView& out, const TensorView& lse, device::StreamHandle stream);
void delta(const TensorView& out, const TensorView& grad_out, const TensorView& delta, device::StreamHandle stream);
void delta_and_clear(const TensorView& out, const TensorView& grad_out, const TensorView& delta,
                     const TensorView& cleared, device::StreamHandle stream);
void add(const TensorView& into, const TensorView& from, device::StreamHandle stream);
void copy(const TensorView& into, const TensorView& from, device::StreamHandle stream);
void compose(const ScanState& into, const ScanState& earlier, device::StreamHandle stream);

}  // namespace cuda

using cuda::clear, cuda::clear_state, cuda::clear_scan, cuda::merge, cuda::normalize, cuda::delta,
    cuda::delta_and_clear, cuda::add, cuda::copy, cuda::compose;

// The rows of one operand: a tensor for each component of its kind.
struct Operand {
  BufferKind kind = BufferKind::query;
  std::array<TensorView, kMostComponents> tensors;

  std::span<const TensorView> components() const { return std::span(tensors).first(row_of(kind).components().size()); }
  const TensorView& operator[](ComponentOf component) const {
    ORRERY_CHECK(kind == component.kind, "a ", to_string(kind), ", not a ", to_string(component.kind));
    return tensors[component.index];
  }
  State state() const { return {(*this)[kAccumulator], (*this)[kRowMax], (*this)[kRowSum]}; }
  ScanState scan() const { return {(*this)[kMatrix], (*this)[kDecay]}; }
};

// Those of an operation, in the order of its row.
struct Operands {
  Operation operation;
  std::array<Operand, kMostOperands> list;
  std::array<bool, kMostOperands> given = {};

  bool has(std::string_view name) const { return given[index_of(name)]; }
  const Operand& operator[](std::string_view name) const { return list[index_of(name)]; }
  std::size_t index_of(std::string_view name) const {
    const std::size_t index = row_of(operation).index_of(name);
    ORRERY_CHECK(index < kMostOperands, to_string(operation), " has no operand `", name, "`");
    return index;
  }
};

// `on` is a pool of threads or a stream.
template <typename On>
void clear(const Operand& into, On&& on) {
  if (into.kind == BufferKind::state) return clear_state(into.state(), on);
  if (into.kind == BufferKind::scan) return clear_scan(into.scan(), on);
  for (const TensorView& tensor : into.components()) clear(tensor, on);
}

template <typename On>
void apply(const Operands& o, On&& on) {
  const auto each = [&](const auto& kernel) {
    const auto into = o["into"].components(), from = o["from"].components();
    for (std::size_t i = 0; i < into.size(); ++i) kernel(into[i], from[i]);
  };
  switch (o.operation) {
    case Operation::clear:
      return clear(o["into"], on);
    case Operation::merge:
      return merge(o["into"].state(), o["from"].state(), on);
    case Operation::add:
      return each([&](const TensorView& into, const TensorView& from) { add(into, from, on); });
    case Operation::compose:
      return compose(o["into"].scan(), o["earlier"].scan(), on);
    case Operation::copy:
      return each([&](const TensorView& into, const TensorView& from) { copy(into, from, on); });
    case Operation::normalize:
      return normalize(o["state"].state(), o["into"][kOut], o["into"][kLse], on);
    case Operation::delta: {
      const TensorView &out = o["output"][kOut], &grad_out = o["grad_output"][kGradOut], &into = o["into"][kDelta];
      if (!o.has("cleared")) return delta(out, grad_out, into, on);
      return delta_and_clear(out, grad_out, into, o["cleared"][kGradQuery], on);
    }
  }
}

}  // namespace orrery::kernels
