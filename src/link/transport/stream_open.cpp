#include "link/transport/stream_open.hpp"

#include "device/stream.hpp"
#include "link/nccl/open_nccl_link.hpp"
#include "link/staged/lone_link.hpp"
#include "link/staged/staged_link.hpp"

namespace orrery {

std::unique_ptr<StreamLink> open_stream_link(World& world, TransportLink& host_link, const std::string& kind,
                                             Device device, int lanes) {
  if (device.kind != DeviceKind::cuda) {
    refuse("a link between devices was asked for ", to_string(device.kind), "; it joins CUDA devices only");
  }
  const device::DeviceGuard guard(device.index);
  const bool by_nccl = kind == "nccl" || (kind == "auto" && has_nccl());
  if (world.world_size() == 1 && (!by_nccl || has_nccl())) return std::make_unique<LoneStreamLink>(world);
  if (by_nccl) return open_nccl_link(world, device.index, lanes, host_link.interrupted());
  return std::make_unique<StagedLink>(world, host_link, device.index);
}

}  // namespace orrery
