#include "device/placement.hpp"

#include <cuda.h>

#include "device/check.hpp"
#include "orrery/error.hpp"

namespace orrery::device {
namespace {

// The driver is asked, for the runtime would make a context on a device that a rank on a CPU has no use for. It is not
// linked: machines without a device load this library too.
std::string refused_on_host(const void* data) {
  using Ask = decltype(&cuPointerGetAttributes);
  static const Ask ask = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuPointerGetAttributes", &found, 7000, cudaEnableDefault, &result);
    cudaGetLastError();  // of a machine without a driver
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<Ask>(found) : nullptr;
  }();
  if (ask == nullptr) return "";
  CUmemorytype type{};
  unsigned managed = 0;
  int index = 0;
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                 CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* answers[] = {&type, &managed, &index};
  const CUresult result = ask(3, asked, answers, reinterpret_cast<CUdeviceptr>(data));
  if (result != CUDA_SUCCESS || type != CU_MEMORYTYPE_DEVICE || managed != 0) return "";
  return concat("lies on CUDA device ", index, "; this rank computes on a CPU");
}

std::string refused_on(int device, const void* data) {
  cudaPointerAttributes found{};
  ORRERY_CUDA_CHECK(cudaPointerGetAttributes(&found, data));
  if (found.type == cudaMemoryTypeManaged) return "";
  if (found.type == cudaMemoryTypeDevice) {
    if (found.device == device) return "";
    return concat("lies on CUDA device ", found.device, "; this rank computes on CUDA device ", device);
  }
  int reached = 0;
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&reached, cudaDevAttrPageableMemoryAccess, device));
  if (found.type == cudaMemoryTypeUnregistered && reached != 0) return "";
  return concat("lies in memory of the host; this rank computes on CUDA device ", device);
}

}  // namespace

std::string misplaced(const void* data, Device device) {
  return device.kind == DeviceKind::cuda ? refused_on(device.index, data) : refused_on_host(data);
}

}  // namespace orrery::device
