// A build without CUDA: there is nothing to compute on.
#include "backend/cuda/cuda_device.hpp"
#include "orrery/error.hpp"

namespace orrery::cuda {

std::unique_ptr<ComputeDevice> open_device(int, const ComputeOptions&) {
  refuse("this build has no CUDA backend; configure with the preset cuda");
}

}  // namespace orrery::cuda
