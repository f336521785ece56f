// Which link carries slices between the devices of MPI's ranks; a build without CUDA has stream_none.cpp, which
// refuses.
#pragma once

#include <memory>
#include <string>

#include "link/mpi/mpi_link.hpp"
#include "link/stream_link.hpp"
#include "orrery/world.hpp"

namespace orrery {

// Collective. `kind` is WorldOptions::device_link; `host_link` is the world's and outlives what is returned.
std::unique_ptr<StreamLink> open_mpi_stream_link(World& world, MpiLink& host_link, const std::string& kind,
                                                 Device device, int lanes);

}  // namespace orrery
