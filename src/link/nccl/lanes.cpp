#include "link/nccl/lanes.hpp"

#include <chrono>
#include <thread>

#include "device/check.hpp"
#include "link/nccl/check.hpp"
#include "orrery/device.hpp"

namespace orrery::nccl {
namespace {

ncclConfig_t blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  return config;
}

std::vector<int> peers_to_warm(const Seat& seat) {
  const int right = (seat.rank + 1) % seat.world_size, left = (seat.rank + seat.world_size - 1) % seat.world_size;
  if (seat.world_size > kAllPairsWarmed) return {left, right};
  std::vector<int> all;
  for (int peer = 0; peer < seat.world_size; ++peer) {
    if (peer != seat.rank) all.push_back(peer);
  }
  return all;
}

void warm(const Lane& lane, const std::vector<int>& peers, std::byte* bytes /* [2][peers.size()] */) {
  std::byte* out = bytes;
  std::byte* in = bytes + peers.size();
  ORRERY_NCCL_CHECK(ncclGroupStart());
  for (const int peer : peers) {
    check(ncclSend(out++, 1, ncclUint8, peer, lane.communicator.get(), lane.stream.handle()), "ncclSend");
    check(ncclRecv(in++, 1, ncclUint8, peer, lane.communicator.get(), lane.stream.handle()), "ncclRecv");
  }
  ORRERY_NCCL_CHECK(ncclGroupEnd());
  lane.stream.synchronize();
}

std::vector<Lane> warmed(std::vector<Lane> lanes, const Seat& seat) {
  const std::vector<int> peers = peers_to_warm(seat);
  const DeviceMemory bytes({DeviceKind::cuda, seat.device}, 2 * peers.size(), "the first messages of NCCL");
  for (const Lane& lane : lanes) warm(lane, peers, bytes.data());
  return lanes;
}

}  // namespace

Seat seat_of(ncclComm_t communicator) {
  Seat seat;
  ORRERY_NCCL_CHECK(ncclCommUserRank(communicator, &seat.rank));
  ORRERY_NCCL_CHECK(ncclCommCount(communicator, &seat.world_size));
  ORRERY_NCCL_CHECK(ncclCommCuDevice(communicator, &seat.device));
  return seat;
}

Communicator split(ncclComm_t parent, const Seat& seat) {
  ncclConfig_t config = blocking();
  ncclComm_t child = nullptr;
  ncclResult_t state = ncclCommSplit(parent, 0, seat.rank, &child, &config);
  while (state == ncclInProgress) {  // a caller's communicator may be of the kind that does not block
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ORRERY_NCCL_CHECK(ncclCommGetAsyncError(parent, &state));
  }
  check(state, "ncclCommSplit");
  return Communicator(child);
}

std::vector<Lane> make_lanes(int count, const ncclUniqueId& id, const Seat& seat) {
  const device::DeviceGuard guard(seat.device);
  ncclConfig_t config = blocking();
  ncclComm_t first = nullptr;
  ORRERY_NCCL_CHECK(ncclCommInitRankConfig(&first, seat.world_size, id, seat.rank, &config));
  std::vector<Lane> lanes(static_cast<std::size_t>(count));
  lanes[0].communicator = Communicator(first);
  for (std::size_t lane = 1; lane < lanes.size(); ++lane) lanes[lane].communicator = split(first, seat);
  return warmed(std::move(lanes), seat);
}

std::vector<Lane> make_lanes(int count, ncclComm_t theirs, const Seat& seat) {
  const device::DeviceGuard guard(seat.device);
  std::vector<Lane> lanes(static_cast<std::size_t>(count));
  for (Lane& lane : lanes) lane.communicator = split(theirs, seat);
  return warmed(std::move(lanes), seat);
}

std::vector<Lane> more_lanes(int count, ncclComm_t first, device::StreamHandle stream, const Seat& seat) {
  const device::DeviceGuard guard(seat.device);
  ORRERY_CUDA_CHECK(cudaStreamSynchronize(stream));
  return make_lanes(count, first, seat);
}

}  // namespace orrery::nccl
