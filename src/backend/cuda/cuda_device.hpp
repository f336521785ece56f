// A CUDA device that a rank computes on.
#pragma once

#include <memory>

#include "backend/memory/compute_device.hpp"

namespace orrery::cuda {

// `device` is its number in this process. Throws ErrorCode::invalid in a build without CUDA, or when there is no such
// device.
std::unique_ptr<ComputeDevice> open_device(int device, const ComputeOptions& options);

}  // namespace orrery::cuda
