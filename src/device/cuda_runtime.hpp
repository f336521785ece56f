// The few things of the CUDA runtime that a build without CUDA has to answer for as well.
#pragma once

#include <cstddef>

namespace orrery::device {

std::byte* allocate(int device, std::size_t bytes);  // null when there is no room
void release(int device, std::byte* bytes) noexcept;

}  // namespace orrery::device
