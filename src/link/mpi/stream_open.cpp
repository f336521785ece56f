#include "link/mpi/stream_open.hpp"

#include "device/stream.hpp"
#include "link/mpi/stream_alone.hpp"
#include "link/mpi/stream_staged.hpp"
#include "link/nccl/open_nccl_link.hpp"

namespace orrery {

std::unique_ptr<StreamLink> open_mpi_stream_link(World& world, MpiLink& host_link, const std::string& kind,
                                                 Device device, int lanes) {
  if (device.kind != DeviceKind::cuda) {
    refuse("a link between devices was asked for ", to_string(device.kind), "; it joins CUDA devices only");
  }
  const device::DeviceGuard guard(device.index);
  const bool by_nccl = kind == "nccl" || (kind == "auto" && has_nccl());
  if (world.world_size() == 1 && (!by_nccl || has_nccl())) return std::make_unique<LoneStreamLink>();
  if (by_nccl) return open_nccl_link(world, device.index, lanes, host_link.interrupted());
  return std::make_unique<StagedLink>(host_link, world.rank(), world.world_size(), device.index,
                                      world.timeout_seconds());
}

}  // namespace orrery
