// Where memory lies, as far as CUDA can tell.
#pragma once

#include <string>

#include "orrery/device.hpp"

namespace orrery::device {

// Why a rank that computes on `device` cannot use memory at this address, in words that follow its name: "lies on CUDA
// device 1; ..."; nothing when it can, or when that cannot be told. Managed memory serves both kinds of device, and
// pageable memory of the host serves a device that reaches it.
std::string misplaced(const void* data, Device device);

}  // namespace orrery::device
