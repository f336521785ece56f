// What a build without MPI has in place of the MPI world.
#include "orrery/world.hpp"

namespace orrery {

std::unique_ptr<World> open_mpi_world(const WorldOptions&) {
  refuse("this Orrery was built without MPI (CMake option ORRERY_MPI); ranks can be threads of one process");
}

}  // namespace orrery
