#include "device/cuda_runtime.hpp"

#include <cstring>

#include "device/check.hpp"
#include "device/stream.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

std::string version_text(int version) {
  return version == 0 ? "none" : concat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

bool has_cuda_backend() {
  return true;
}

std::vector<CudaDeviceInfo> cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {  // no driver, or no device
    cudaGetLastError();
    return {};
  }
  std::vector<CudaDeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    ORRERY_CUDA_CHECK(cudaGetDeviceProperties(&p, i));
    devices.push_back({p.name,
                       {p.uuid.bytes, sizeof p.uuid.bytes},
                       10 * p.major + p.minor,
                       p.multiProcessorCount,
                       static_cast<std::int64_t>(p.totalGlobalMem),
                       p.l2CacheSize});
  }
  return devices;
}

void require(Device device) {
  if (device.kind == DeviceKind::cuda) static_cast<void>(device::DeviceGuard(device.index));
}

bool joined(Device first, Device second) {
  if (first == second) return true;
  int atomics = 0;  // which devices have on each other's memory over NVLink, not over PCIe
  ORRERY_CUDA_CHECK(
      cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, first.index, second.index));
  return atomics != 0;
}

std::string cuda_runtime_version() {
  return version_text(CUDART_VERSION);
}

std::string cuda_driver_version() {
  int version = 0;
  cudaDriverGetVersion(&version);
  return version_text(version);
}

void copy_bytes(void* into, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  const cudaError_t result = cudaMemcpy(into, from, bytes, cudaMemcpyDefault);
  if (result == cudaErrorInsufficientDriver || result == cudaErrorNoDevice) {  // then all memory is the host's
    cudaGetLastError();
    std::memcpy(into, from, bytes);
    return;
  }
  device::check(result, "cudaMemcpy");
  // It returns early from a copy inside the device, and from a small one out of pageable memory, which the driver has
  // only taken into its own. Streams that do not wait for the default one would not see the bytes yet.
  ORRERY_CUDA_CHECK(cudaStreamSynchronize(cudaStreamLegacy));
}

void synchronize(Device device) {
  if (device.kind == DeviceKind::cpu) return;
  const device::DeviceGuard guard(device.index);
  ORRERY_CUDA_CHECK(cudaDeviceSynchronize());
}

std::int64_t memory_in_use(Device device) {
  if (device.kind == DeviceKind::cpu) return 0;
  const device::DeviceGuard guard(device.index);
  std::size_t free = 0, total = 0;
  ORRERY_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(total - free);
}

namespace device {

std::byte* allocate(int device, std::size_t bytes) {
  const DeviceGuard guard(device);
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  ORRERY_CUDA_CHECK(error);
  return static_cast<std::byte*>(memory);
}

void release(int device, std::byte* bytes) noexcept {
  int previous = 0;
  cudaGetDevice(&previous);
  cudaSetDevice(device);
  cudaFree(bytes);
  cudaSetDevice(previous);
}

}  // namespace device
}  // namespace orrery
