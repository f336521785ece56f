// A build without CUDA: nobody can have tensors on a device.
#include "orrery/error.hpp"
#include "verify/shares.hpp"

namespace orrery {

std::unique_ptr<Shares> make_cuda_shares(const Plan&, int, const AttentionTensors&, int) {
  refuse("verify: this build has no CUDA backend; configure with the preset cuda");
}

}  // namespace orrery
