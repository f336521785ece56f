#include "link/nccl/open_nccl_link.hpp"

#include <cstring>
#include <optional>

#include "link/nccl/bounded.hpp"
#include "link/nccl/check.hpp"
#include "link/nccl/nccl_streams.hpp"
#include "link/nccl/shared_devices.hpp"
#include "link/outstanding.hpp"
#include "link/streams/streams_link.hpp"

namespace orrery {
namespace {

std::unique_ptr<StreamLink> opened(std::future<std::vector<nccl::Lane>> lanes, const nccl::Seat& seat,
                                   double timeout_seconds, const Interrupted* interrupted) {
  if (!nccl::ready(lanes, Deadline(timeout_seconds, interrupted))) {
    fail(ErrorCode::peer, "NCCL: not every rank made its communicators within ", seconds_text(timeout_seconds), " s");
  }
  auto streams = std::make_unique<nccl::NcclStreams>(lanes.get(), seat, timeout_seconds, interrupted);
  return std::make_unique<StreamsLink>(std::move(streams), timeout_seconds, interrupted);
}

}  // namespace

bool has_nccl() {
  return true;
}

std::unique_ptr<StreamLink> open_nccl_link(World& world, int device, int lanes, const Interrupted* interrupted) {
  nccl::refuse_shared_devices(world, device);
  ncclUniqueId id{};
  std::optional<Error> met;
  try {
    if (world.rank() == 0) ORRERY_NCCL_CHECK(ncclGetUniqueId(&id));
  } catch (const Error& error) {
    met = error;
  }
  agree_no_error(world, met ? &*met : nullptr);
  const std::vector<std::byte> shared = world.all_gather(std::as_bytes(std::span(&id, 1)))[0];
  ORRERY_CHECK(shared.size() == sizeof id, "rank 0 gave ", shared.size(), " bytes of an id of ", sizeof id);
  std::memcpy(&id, shared.data(), sizeof id);
  const nccl::Seat seat{world.rank(), world.world_size(), device};
  return opened(nccl::begin([=] { return nccl::make_lanes(lanes, id, seat); }), seat, world.timeout_seconds(),
                interrupted);
}

std::unique_ptr<StreamLink> open_nccl_link(void* communicator, int lanes, double timeout_seconds,
                                           const Interrupted* interrupted) {
  const auto theirs = static_cast<ncclComm_t>(communicator);
  const nccl::Seat seat = nccl::seat_of(theirs);
  return opened(nccl::begin([=] { return nccl::make_lanes(lanes, theirs, seat); }), seat, timeout_seconds, interrupted);
}

}  // namespace orrery
