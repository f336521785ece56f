// Packs and unpacks rows that do not lie together.
#pragma once

#include "device/handles.hpp"
#include "orrery/region.hpp"

namespace orrery::kernels::cuda {

// The bytes of `from`, in their order, become those of `into`. Both are of one size, of shapes of their own, apart from
// each other and on the current device; any alignment, but 16-byte accesses want pointers, strides and runs of 16.
void copy_region(const Region& into, const Region& from, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
