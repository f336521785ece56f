#include "device/pinned.hpp"

#include <cuda_runtime_api.h>

#include "device/check.hpp"
#include "orrery/error.hpp"

namespace orrery::device {

PinnedMemory::PinnedMemory(std::size_t bytes, std::string_view purpose) {
  if (bytes == 0) return;
  void* memory = nullptr;
  const cudaError_t error = cudaMallocHost(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorCode::resource, "out of memory: ", bytes, " bytes of pinned memory for ", purpose);
  }
  ORRERY_CUDA_CHECK(error);
  bytes_.reset(static_cast<std::byte*>(memory));
}

void PinnedMemory::Free::operator()(std::byte* bytes) const noexcept {
  cudaFreeHost(bytes);
}

}  // namespace orrery::device
