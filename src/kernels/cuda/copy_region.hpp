// Packs and unpacks rows that do not lie together: what a link's regions (link/link.hpp) are to the kernels, which know
// nothing of links.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "device/handles.hpp"

namespace orrery::kernels::cuda {

// counts[0] x counts[1] x counts[2] runs of `run_bytes`, strides in bytes.
struct Runs {
  std::byte* data = nullptr;
  std::array<std::int64_t, 3> counts = {1, 1, 1};
  std::array<std::int64_t, 3> strides = {0, 0, 0};
  std::int64_t run_bytes = 0;

  std::int64_t bytes() const { return counts[0] * counts[1] * counts[2] * run_bytes; }
  bool contiguous() const { return counts[0] * counts[1] * counts[2] == 1; }
};

// The bytes of `from`, in their order, become those of `into`. Both are of one size, of shapes of their own, apart from
// each other and on the current device; any alignment, but 16-byte accesses want pointers, strides and runs of 16.
void copy_region(const Runs& into, const Runs& from, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
