// Which device each rank computes on. Either all ranks compute on CUDA devices or none does.
//
// Ranks that are threads of this process share its devices round robin. Processes take one each, by their number on
// the host, as the launcher tells it, among those that they see; two have the same one only when told to share.
#pragma once

#include <string>

#include "launch/options.hpp"
#include "orrery/device.hpp"
#include "orrery/problem.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

// Collective. With --device auto a CPU wherever a rank could not have a device; with --device cuda that is refused.
// The choice says why it is a CPU where a rank has a CUDA device, unless that was asked for.
struct DeviceChoice {
  Device device;
  std::string why_cpu;
};
DeviceChoice choose_device(World& world, const Options& options, const AttentionProblem& problem);

// "cpu", or the name of the CUDA device.
std::string device_name(Device device);
// "9.0" of 90.
std::string capability_text(int compute_capability);

}  // namespace orrery::launch
