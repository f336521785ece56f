// NCCL refuses two ranks on one device, unless they seem to live on different hosts. Ranks that share a device are made
// to seem so before NCCL is first called: their bytes then go through sockets of this host. It shows that a program
// works on as many ranks as one likes with a single GPU; it does not show how fast.
#pragma once

#include "orrery/world.hpp"

namespace orrery::nccl {

// Collective. Sets environment variables of this process, except those that the user has set.
void let_ranks_share_devices(World& world, int device);

}  // namespace orrery::nccl
