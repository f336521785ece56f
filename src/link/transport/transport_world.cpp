#include "link/transport/transport_world.hpp"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "link/host_name.hpp"
#include "link/transport/stream_open.hpp"

namespace orrery {
namespace {

// Cores that this process may run on; one, when the launcher bound it to one.
int usable_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

}  // namespace

std::string Transport::host() const {
  return host_name();
}

TransportWorld::TransportWorld(std::unique_ptr<Transport> transport, const WorldOptions& options,
                               std::unique_ptr<StreamTransport> streams)
    : options_(options),
      transport_(std::move(transport)),
      name_(transport_->name()),
      gather_(*transport_, &options_.interrupted),
      link_(*transport_, &options_.interrupted),
      streams_(std::move(streams)) {
  topology_ = Topology::from_hosts(orrery::all_gather(*this, transport_->host()));
  const auto& nodes = topology_.node_of_rank;
  const auto ranks_here = std::count(nodes.begin(), nodes.end(), nodes[static_cast<std::size_t>(rank())]);
  link_.thread().core_to_spare(usable_cores() >= 2 * ranks_here);
}

TransportWorld::~TransportWorld() {
  close_stream_link();
}

StreamLink& TransportWorld::stream_link(Device device, int lanes) {
  if (!stream_link_) {
    stream_link_ = open_stream_link(*this, link_, streams_, options_.device_link, device, lanes);
    stream_device_ = device;
  }
  if (device != stream_device_) {
    refuse("rank ", rank(), " asks for a link of device ", device.index, "; it has one of device ",
           stream_device_.index);
  }
  stream_link_->open_lanes(lanes);
  return *stream_link_;
}

Records TransportWorld::all_gather(std::span<const std::byte> mine) {
  ORRERY_CHECK(!link_.thread().serving(), "all_gather while a run is under way");
  return gather_(mine, options_.timeout_seconds);
}

void TransportWorld::all_reduce(std::span<double> values, Reduction reduction) {
  ORRERY_CHECK(!link_.thread().serving(), "all_reduce while a run is under way");
  gather_.all_reduce(values, reduction, options_.timeout_seconds);
}

void TransportWorld::abort(ErrorCode code, std::string_view message) noexcept {
  link_.quiesce();
  transport_->abort(code, message);
}

bool TransportWorld::in_good_order() const {
  return !link_.broken() && !gather_.broken() && std::uncaught_exceptions() <= exceptions_at_open_;
}

void check_options(const WorldOptions& options, std::string_view transport) {
  if (!(options.timeout_seconds > 0)) refuse("a timeout of ", options.timeout_seconds, " seconds");
  const std::string& kind = options.device_link;
  if (kind != "auto" && kind != "nccl" && kind != transport) {
    refuse("a device link \"", kind, "\": between processes there are auto, nccl and ", transport);
  }
}

std::unique_ptr<World> open_world(std::unique_ptr<Transport> transport, const WorldOptions& options) {
  return open_world(std::move(transport), nullptr, options);
}

std::unique_ptr<World> open_world(std::unique_ptr<Transport> transport, std::unique_ptr<StreamTransport> streams,
                                  const WorldOptions& options) {
  if (!transport) refuse("no transport is given");
  check_options(options, transport->name());
  const int rank = transport->rank(), world_size = transport->world_size();
  if (world_size < 1) refuse("a transport of ", world_size, " ranks");
  if (rank < 0 || rank >= world_size) refuse("a transport's rank ", rank, " of ", world_size, " ranks");
  if (streams && (streams->rank() != rank || streams->world_size() != world_size)) {
    refuse("rank ", rank, " of ", world_size, " has streams of rank ", streams->rank(), " of ", streams->world_size());
  }
  return std::make_unique<TransportWorld>(std::move(transport), options, std::move(streams));
}

}  // namespace orrery
