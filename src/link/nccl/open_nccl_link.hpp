// How the NCCL link is opened, without a header of NCCL; a build without it has no_nccl.cpp.
#pragma once

#include <memory>

#include "link/deadline.hpp"
#include "link/stream_link.hpp"
#include "orrery/world.hpp"

namespace orrery {

bool has_nccl();

// Collective: all ranks of the world, each with its device, which several ranks of a host may share. More lanes than
// these can be opened later. Throws
// ErrorCode::peer when not all of them come within the world's timeout.
std::unique_ptr<StreamLink> open_nccl_link(World& world, int device, int lanes, const Interrupted* interrupted);

// The same among the ranks of a caller's own communicator (an ncclComm_t), which must outlive this call and is neither
// used nor freed later.
std::unique_ptr<StreamLink> open_nccl_link(void* communicator, int lanes, double timeout_seconds,
                                           const Interrupted* interrupted);

}  // namespace orrery
