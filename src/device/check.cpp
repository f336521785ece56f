#include "device/check.hpp"

#include "orrery/error.hpp"

namespace orrery::device {

void throw_cuda_error(cudaError_t error, const char* call) {
  cudaGetLastError();  // where it can be forgotten, the next call should not meet it
  const bool resource = error == cudaErrorMemoryAllocation || error == cudaErrorNoDevice ||
                        error == cudaErrorDevicesUnavailable || error == cudaErrorInsufficientDriver ||
                        error == cudaErrorSystemNotReady || error == cudaErrorECCUncorrectable;
  fail(resource ? ErrorCode::resource : ErrorCode::bug, "CUDA: ", cudaGetErrorString(error), " (",
       cudaGetErrorName(error), ") from ", call);
}

}  // namespace orrery::device
