// How a test opens the world of all MPI processes with messages that are cut small. No header of MPI is needed for it.
#pragma once

#include <cstdint>
#include <memory>

#include "orrery/world.hpp"

namespace orrery {

std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options, std::int64_t piece_bytes);

}  // namespace orrery
