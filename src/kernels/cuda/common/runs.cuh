// Walking over runs of memory in units of up to 16 bytes: the n-th unit of a region, wherever it lies. Kernels that
// treat all elements alike (copy, add, clear) walk each tensor on its own, so shapes and strides need not agree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/common/divisor.cuh"
#include "orrery/region.hpp"

namespace orrery::kernels::cuda {

// The largest power of two, up to 16, that divides the runs' address, length and (simplified, so that none is idle)
// strides.
inline int widest_unit(const Region& runs) {
  std::uint64_t bits = reinterpret_cast<std::uintptr_t>(runs.data) | static_cast<std::uint64_t>(runs.run_bytes) | 16;
  for (std::int64_t stride : runs.strides) bits |= static_cast<std::uint64_t>(stride);
  return static_cast<int>(bits & (~bits + 1));
}

class Walk {
 public:
  Walk() = default;
  // `runs` are simplified; unit_bytes divides run_bytes.
  Walk(const Region& runs, int unit_bytes)
      : data_(runs.data),
        strides_{runs.strides[0], runs.strides[1], runs.strides[2]},
        run_units_(runs.run_bytes / unit_bytes),
        inner_(runs.counts[2]),
        middle_(runs.counts[1]),
        unit_bytes_(unit_bytes),
        one_run_(runs.run_bytes == runs.bytes()) {}

  __device__ int unit_bytes() const { return unit_bytes_; }

  template <typename T>
  __device__ T* at(std::int64_t unit) const {
    if (one_run_) return reinterpret_cast<T*>(data_ + unit * unit_bytes_);  // as often: nothing to divide
    const Divisor::Division run = run_units_.divide(unit);
    const Divisor::Division inner = inner_.divide(run.quotient);
    const Divisor::Division middle = middle_.divide(inner.quotient);
    return reinterpret_cast<T*>(data_ + middle.quotient * strides_[0] + middle.rest * strides_[1] +
                                inner.rest * strides_[2] + run.rest * unit_bytes_);
  }

 private:
  std::byte* data_ = nullptr;
  std::int64_t strides_[3] = {};
  Divisor run_units_, inner_, middle_;
  int unit_bytes_ = 1;
  bool one_run_ = true;
};

}  // namespace orrery::kernels::cuda
