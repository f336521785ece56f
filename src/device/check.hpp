// Every call of the CUDA runtime goes through ORRERY_CUDA_CHECK: an error becomes an exception that says which call and
// why. Running out of memory is ErrorCode::resource; a device that another process has taken or that is broken too.
#pragma once

#include <cuda_runtime_api.h>

namespace orrery::device {

[[noreturn]] void throw_cuda_error(cudaError_t error, const char* call);

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw_cuda_error(error, call);
}

}  // namespace orrery::device

#define ORRERY_CUDA_CHECK(call) ::orrery::device::check((call), #call)
