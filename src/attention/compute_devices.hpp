// The devices that a rank may compute on, each behind the interface of backend/memory/compute_device.hpp. This is the
// one place that lists them.
#pragma once

#include <memory>

#include "backend/memory/compute_device.hpp"
#include "orrery/attention.hpp"

namespace orrery {

// Throws ErrorCode::invalid or ErrorCode::resource, with the reason, when there is no such device in this build or
// process, or when the options do not fit it.
std::unique_ptr<ComputeDevice> open_compute_device(const AttentionOptions& options);

}  // namespace orrery
