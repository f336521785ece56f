#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/sm90/forward/attend_forward.hpp"
#include "orrery/machine.hpp"

namespace orrery {

std::string cuda_refuses(Dtype dtype, int head_dim) {
  if (cuda_devices().empty()) return "there is no CUDA device that this process may use";
  const char* reason = kernels::cuda::attend_refuses(dtype, head_dim);
  return reason == nullptr ? "" : reason;
}

std::string cuda_kernels(const CudaDeviceInfo& device) {
  using kernels::cuda::KernelFamily;
  const bool hopper = device.compute_capability == kernels::cuda::sm90::kComputeCapability;
  return std::string(to_string(hopper ? KernelFamily::hopper : KernelFamily::portable));
}

std::string portable_kernels_reason(const CudaDeviceInfo& device, bool backward, int head_dim, double scale) {
  if (device.compute_capability != kernels::cuda::sm90::kComputeCapability) return "";
  return std::string(backward ? kernels::cuda::backward_stays_portable(head_dim)
                              : kernels::cuda::forward_stays_portable(head_dim, static_cast<float>(scale)));
}

}  // namespace orrery
