// What a build without MPI has in place of the MPI world.
#include "orrery/world.hpp"

namespace orrery {

std::unique_ptr<World> open_mpi_world(const void*, const WorldOptions&) {
  refuse("this Orrery was built without MPI (CMake option ORRERY_MPI); ranks can be threads of one process");
}

std::unique_ptr<World> open_mpi_world(const WorldOptions& options) {
  return open_mpi_world(nullptr, options);
}

}  // namespace orrery
