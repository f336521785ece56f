#include "link/nccl/shared_devices.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "device/check.hpp"

namespace orrery::nccl {
namespace {

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// The device's own identity: processes may number their devices differently.
std::string identity(int device) {
  cudaDeviceProp properties{};
  ORRERY_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return {properties.uuid.bytes, sizeof properties.uuid.bytes};
}

void set_unless_set(const char* name, const std::string& value) {
  setenv(name, value.c_str(), 0);
}

}  // namespace

void let_ranks_share_devices(World& world, int device) {
  const std::vector<std::string> devices = all_gather(world, identity(device));
  const auto ranks_on = [&](const std::string& one) { return std::count(devices.begin(), devices.end(), one); };
  const bool shared = std::any_of(devices.begin(), devices.end(), [&](const auto& one) { return ranks_on(one) > 1; });
  if (!shared) return;
  if (ranks_on(devices[world.rank()]) > 1) set_unless_set("NCCL_HOSTID", concat(host_name(), "-", world.rank()));
  if (world.topology().nodes() > 1) return;  // then NCCL needs the real network
  set_unless_set("NCCL_IB_DISABLE", "1");
  set_unless_set("NCCL_SOCKET_IFNAME", "lo");
}

}  // namespace orrery::nccl
