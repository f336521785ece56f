// How the probes are launched and watched.
#pragma once

#include <cuda_runtime.h>

#include <span>
#include <vector>

#include "device/check.hpp"
#include "kernels/cuda/sm90/ptx.cuh"

namespace orrery::test::sm90 {

using namespace kernels::cuda;        // NOLINT: the tests' subject
using namespace kernels::cuda::sm90;  // NOLINT

// Memory of the device with a copy of the host's, and back.
template <typename Element>
class Copied {
 public:
  explicit Copied(std::span<const Element> elements) : size_(elements.size()) {
    ORRERY_CUDA_CHECK(cudaMalloc(&memory_, elements.size_bytes()));
    ORRERY_CUDA_CHECK(cudaMemcpy(memory_, elements.data(), elements.size_bytes(), cudaMemcpyHostToDevice));
  }
  Copied(std::size_t count, Element value) : Copied(std::vector<Element>(count, value)) {}
  ~Copied() { cudaFree(memory_); }
  Copied(const Copied&) = delete;
  Copied& operator=(const Copied&) = delete;

  Element* data() const { return static_cast<Element*>(memory_); }
  std::vector<Element> fetch() const {
    std::vector<Element> elements(size_);
    ORRERY_CUDA_CHECK(cudaMemcpy(elements.data(), memory_, size_ * sizeof(Element), cudaMemcpyDeviceToHost));
    return elements;
  }

 private:
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

__device__ __forceinline__ unsigned long long nanoseconds() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
__device__ __forceinline__ void sleep_microseconds(unsigned count) {
  const unsigned long long until = nanoseconds() + 1000 * count;
  while (nanoseconds() < until) __nanosleep(500);
}

// One block works and a second watches it: when the first has not ended in time, the kernel fails.
struct Watch {
  int* ended;

  // By all threads, first: true in the block that has only watched.
  __device__ __forceinline__ bool only_watches() const {
    if (block_index() == 0) return false;
    constexpr unsigned long long kLimit = 5'000'000'000;
    const unsigned long long begin = nanoseconds();
    while (threadIdx.x == 0 && atomicAdd(ended, 0) == 0) {
      if (nanoseconds() - begin > kLimit) __trap();
      __nanosleep(1000);
    }
    return true;
  }
  // By all threads of the block that works, last.
  __device__ __forceinline__ void end() const {
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(ended, 1);
  }
};

template <typename... Parameters>
void run(void (*kernel)(Watch, Parameters...), int threads, std::size_t shared_bytes,
         std::type_identity_t<Parameters>... arguments) {
  const Copied<int> ended(1, 0);
  ORRERY_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  kernel<<<2, static_cast<unsigned>(threads), shared_bytes>>>(Watch{ended.data()}, arguments...);
  ORRERY_CUDA_CHECK(cudaGetLastError());
  ORRERY_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace orrery::test::sm90
