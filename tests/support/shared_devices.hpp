// Ranks that are processes of one host and share its CUDA devices: NCCL takes them only when it believes that they live
// on different hosts, and the library sets no variables.
#pragma once

#include <cstdlib>
#include <string>

#include "orrery/device.hpp"
#include "orrery/world.hpp"

namespace orrery::test {

// Before NCCL is first called.
inline void let_ranks_share_devices(const World& world) {
  if (world.world_size() <= static_cast<int>(cuda_devices().size())) return;
  setenv("NCCL_HOSTID", ("orrery-test-" + std::to_string(world.rank())).c_str(), 0);
  setenv("NCCL_SOCKET_IFNAME", "lo", 0);
  setenv("NCCL_IB_DISABLE", "1", 0);
}

}  // namespace orrery::test
