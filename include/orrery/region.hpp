// Memory in runs of bytes: what moves between ranks, and what kernels pack and unpack.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace orrery {

// counts[0] x counts[1] x counts[2] runs of `run_bytes`, strides in bytes; counts[0] is the outermost loop.
struct Region {
  std::byte* data = nullptr;
  std::array<std::int64_t, 3> counts = {1, 1, 1};
  std::array<std::int64_t, 3> strides = {0, 0, 0};
  std::int64_t run_bytes = 0;

  std::int64_t bytes() const { return counts[0] * counts[1] * counts[2] * run_bytes; }
  bool contiguous() const { return counts[0] * counts[1] * counts[2] == 1; }
};

}  // namespace orrery
