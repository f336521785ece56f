#include "orrery/machine.hpp"

namespace orrery {

std::string cuda_refuses(Dtype, int) {
  return "this build has no CUDA backend; configure with the preset cuda";
}

std::string cuda_kernels(const CudaDeviceInfo&) {
  return "";
}

std::string portable_kernels_reason(const CudaDeviceInfo&, bool, int, double) {
  return "";
}

}  // namespace orrery
