// The world of the ranks of a caller's NCCL communicator, for programs that were not started by MPI. The communicator
// is split for the world's records, and that one again for the lanes on which slices travel, so the caller's own is
// needed no longer than while the world is opened. The process is the caller's: nothing here ends it.
#include <string>
#include <utility>

#include "device/stream.hpp"
#include "link/deadline.hpp"
#include "link/host_name.hpp"
#include "link/nccl/bounded.hpp"
#include "link/nccl/check.hpp"
#include "link/nccl/gather.hpp"
#include "link/nccl/open_nccl_link.hpp"
#include "link/outstanding.hpp"
#include "link/streams/streams_link.hpp"
#include "orrery/world.hpp"

namespace orrery {
namespace {

std::unique_ptr<nccl::Gather> open_gather(ncclComm_t theirs, const nccl::Seat& seat, const WorldOptions& options) {
  auto gather = nccl::begin([=] {
    const device::DeviceGuard guard(seat.device);
    return std::make_unique<nccl::Gather>(theirs, seat);
  });
  if (!nccl::ready(gather, Deadline(options.timeout_seconds, &options.interrupted))) {
    fail(ErrorCode::peer, "NCCL: not every rank opened the world within ", seconds_text(options.timeout_seconds), " s");
  }
  return gather.get();
}

class NcclWorld final : public World {
 public:
  NcclWorld(ncclComm_t theirs, const nccl::Seat& seat, const WorldOptions& options)
      : seat_(seat), options_(options), gather_(open_gather(theirs, seat, options_)) {
    topology_ = Topology::from_hosts(orrery::all_gather(*this, host_name()));
  }

  int rank() const override { return seat_.rank; }
  const Topology& topology() const override { return topology_; }
  double timeout_seconds() const override { return options_.timeout_seconds; }
  std::string_view link_name() const override { return "nccl"; }

  Records all_gather(std::span<const std::byte> mine) override {
    return (*gather_)(mine, options_.timeout_seconds, &options_.interrupted);
  }

  Link& link() override {
    refuse("a world over NCCL carries slices between CUDA devices only: the tensors must lie on the device");
  }
  StreamLink& stream_link(Device device, int lanes) override {
    if (device != Device{DeviceKind::cuda, seat_.device}) {
      refuse("rank ", seat_.rank, " asks for a link of ", to_string(device.kind), " device ", device.index,
             "; its communicator is of CUDA device ", seat_.device);
    }
    gather_->throw_if_broken();
    if (!stream_link_) {
      stream_link_ = open_nccl_link(gather_->communicator(), lanes, options_.timeout_seconds, &options_.interrupted);
    }
    stream_link_->open_lanes(lanes);
    return *stream_link_;
  }

  void abort(ErrorCode code, std::string_view message) noexcept override {
    const Error why(code, std::string(message));
    gather_->break_down(why);
    if (stream_link_) static_cast<StreamsLink&>(*stream_link_).break_down(why);
  }

 private:
  nccl::Seat seat_;
  WorldOptions options_;
  Topology topology_;
  std::unique_ptr<nccl::Gather> gather_;
  std::unique_ptr<StreamLink> stream_link_;
};

}  // namespace

std::unique_ptr<World> open_nccl_world(void* communicator, Device device, const WorldOptions& options) {
  if (communicator == nullptr) refuse("no communicator of NCCL is given");
  if (!(options.timeout_seconds > 0)) refuse("a timeout of ", options.timeout_seconds, " seconds");
  if (options.device_link != "auto" && options.device_link != "nccl") {
    refuse("a device link \"", options.device_link, "\": a world over NCCL has auto and nccl");
  }
  const auto theirs = static_cast<ncclComm_t>(communicator);
  const nccl::Seat seat = nccl::seat_of(theirs);
  if (device != Device{DeviceKind::cuda, seat.device}) {
    refuse("the communicator of NCCL is of CUDA device ", seat.device, "; given is ", to_string(device.kind),
           " device ", device.index);
  }
  return std::make_unique<NcclWorld>(theirs, seat, options);
}

}  // namespace orrery
