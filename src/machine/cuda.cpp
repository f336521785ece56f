#include "kernels/cuda/attend.hpp"
#include "orrery/machine.hpp"

namespace orrery {

std::string cuda_refuses(Dtype dtype, int head_dim) {
  if (cuda_devices().empty()) return "there is no CUDA device that this process may use";
  const char* reason = kernels::cuda::attend_refuses(dtype, head_dim);
  return reason == nullptr ? "" : reason;
}

}  // namespace orrery
