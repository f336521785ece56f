#include <algorithm>
#include <string>
#include <vector>

#include "orrery/attention.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

// What this rank's device sends to any other's, as far as this process sees them; 0 when it does not know.
double rate_to_all(const std::vector<std::string>& uuids, Device device, const Costs& costs) {
  const std::vector<CudaDeviceInfo> visible = cuda_devices();
  double rate = costs.inside_device_bytes_per_second;
  for (const std::string& uuid : uuids) {
    const auto peer = std::find_if(visible.begin(), visible.end(), [&](const auto& info) { return info.uuid == uuid; });
    const auto index = static_cast<int>(peer - visible.begin());
    if (peer == visible.end() || !joined(device, {DeviceKind::cuda, index})) return 0;
    if (index != device.index) rate = costs.nvlink_bytes_per_second;
  }
  return rate;
}

}  // namespace

Costs default_costs(DeviceKind kind) {
  return kind == DeviceKind::cuda ? Costs::cuda() : Costs::cpu();
}

Topology device_topology(World& world, Device device, const Costs& costs) {
  Topology topology = world.topology();
  if (device.kind == DeviceKind::cpu || topology.nodes() > 1) return topology;
  std::string mine;
  all_or_none(world, [&] {
    require(device);
    mine = cuda_devices().at(static_cast<std::size_t>(device.index)).uuid;
  });
  const std::vector<std::string> uuids = all_gather(world, mine);
  double rate = 0;
  all_or_none(world, [&] { rate = rate_to_all(uuids, device, costs); });
  const std::vector<double> rates = all_gather(world, rate);
  topology.inside_node.bytes_per_second = *std::min_element(rates.begin(), rates.end());
  topology.one_device = std::all_of(uuids.begin(), uuids.end(), [&](const auto& uuid) { return uuid == uuids[0]; });
  return topology;
}

}  // namespace orrery
