// This machine's processors as a device that a rank computes on.
#pragma once

#include <memory>

#include "backend/memory/compute_device.hpp"

namespace orrery::host {

// Throws ErrorCode::invalid or ErrorCode::resource when there cannot be as many threads.
std::unique_ptr<ComputeDevice> open_device(const ComputeOptions& options);

}  // namespace orrery::host
