#include "link/nccl/shared_devices.hpp"

#include <cstdlib>
#include <string>

#include "device/check.hpp"

namespace orrery::nccl {
namespace {

// The device's own identity, for processes may number their devices differently; and the host that NCCL takes it for.
std::string identity(int device) {
  cudaDeviceProp properties{};
  ORRERY_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  const char* host = std::getenv("NCCL_HOSTID");
  return std::string(properties.uuid.bytes, sizeof properties.uuid.bytes) + (host == nullptr ? "" : host);
}

}  // namespace

void refuse_shared_devices(World& world, int device) {
  std::string mine;
  all_or_none(world, [&] { mine = identity(device); });
  const std::vector<std::string> all = all_gather(world, mine);
  for (std::size_t second = 1; second < all.size(); ++second) {
    for (std::size_t first = 0; first < second; ++first) {
      if (all[first] != all[second]) continue;
      refuse("ranks ", first, " and ", second,
             " have one CUDA device between them, which NCCL takes only of ranks that seem to live on different hosts: "
             "set NCCL_HOSTID, differently on each rank, and on a single host NCCL_SOCKET_IFNAME=lo and "
             "NCCL_IB_DISABLE=1, before the program starts; or take the device link mpi");
    }
  }
}

}  // namespace orrery::nccl
