// Places that come round: the stages of a pipeline, and the phases of the barriers that guard them.
#pragma once

#include <cstdint>

namespace orrery::kernels::cuda::sm90 {

// Numbers what comes round in a ring: the k-th use of n places is use k / n of place k % n.
template <int kPlaces>
struct Ring {
  std::uint32_t number = 0;

  __device__ __forceinline__ std::uint32_t place() const { return number % kPlaces; }
  // Of the barrier that says that the place is full, and, for those who fill it, that it is empty.
  __device__ __forceinline__ std::uint32_t full() const { return number / kPlaces & 1; }
  __device__ __forceinline__ std::uint32_t empty() const { return full() ^ 1; }
};

}  // namespace orrery::kernels::cuda::sm90
