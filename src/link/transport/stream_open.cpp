#include "link/transport/stream_open.hpp"

#include "device/stream.hpp"
#include "link/nccl/open_nccl_link.hpp"
#include "link/staged/lone_link.hpp"
#include "link/staged/staged_link.hpp"
#include "link/streams/streams_link.hpp"

namespace orrery {

std::unique_ptr<StreamLink> open_stream_link(World& world, TransportLink& host_link,
                                             std::unique_ptr<StreamTransport>& streams, const std::string& kind,
                                             Device device, int lanes) {
  if (device.kind != DeviceKind::cuda) {
    refuse("a link between devices was asked for ", to_string(device.kind), "; it joins CUDA devices only");
  }
  const device::DeviceGuard guard(device.index);
  if (streams) {
    if (device != streams->device()) {
      refuse("rank ", world.rank(), " asks for a link of device ", device.index, "; its streams are of device ",
             streams->device().index);
    }
    return std::make_unique<StreamsLink>(std::move(streams), world.timeout_seconds(), host_link.interrupted());
  }
  const bool by_nccl = kind == "nccl" || (kind == "auto" && has_nccl());
  if (world.world_size() == 1 && (!by_nccl || has_nccl())) return std::make_unique<LoneStreamLink>(world);
  if (by_nccl) return open_nccl_link(world, device.index, lanes, host_link.interrupted());
  return std::make_unique<StagedLink>(world, host_link, device.index);
}

}  // namespace orrery
