#include "link/mpi/stream_open.hpp"
#include "link/no_device_link.hpp"

namespace orrery {

std::unique_ptr<StreamLink> open_mpi_stream_link(World&, MpiLink&, const std::string&, Device, int) {
  refuse_device_link();
}

}  // namespace orrery
