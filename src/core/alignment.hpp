// How memory is aligned: a host's to a cache line, which the widest vectors want too; a device's, and what is staged on
// its way there, to what every allocator of device memory keeps.
#pragma once

#include <cstddef>

namespace orrery {

inline constexpr std::size_t kHostAlignment = 64, kDeviceAlignment = 256;

constexpr std::size_t aligned(std::size_t bytes, std::size_t to) {
  return (bytes + to - 1) / to * to;
}

}  // namespace orrery
