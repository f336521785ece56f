// NCCL refuses two ranks on one device, unless they seem to live on different hosts. A program that wants that says so
// to NCCL by variables of the environment, before any rank calls it; their bytes then go through sockets. It shows that
// a program works on as many ranks as one likes with a single GPU; it does not show how fast.
#pragma once

#include "orrery/world.hpp"

namespace orrery::nccl {

// Collective. Throws ErrorCode::invalid on all ranks, naming two that share a device and do not seem to live on
// different hosts, with the variables to set.
void refuse_shared_devices(World& world, int device);

}  // namespace orrery::nccl
