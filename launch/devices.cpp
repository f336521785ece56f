#include "launch/devices.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/launcher.hpp"
#include "orrery/machine.hpp"

namespace orrery::launch {
namespace {

// Whether the ranks are threads of this process.
bool in_one_process(const World& world) {
  return world.link_name() == "inprocess";
}

// The number of this rank's device, as its process counts them. A launcher may let each process see all devices of the
// host or one of its own: either way the local rank picks one, and sharers() tells whether it is another's too.
int index_of(const World& world, const Options& options) {
  const int count = static_cast<int>(cuda_devices().size());
  if (options.device_index) {
    if (*options.device_index < count) return *options.device_index;
    refuse("--device-index ", *options.device_index, ": this process has ", counted(count, "CUDA device"),
           ", numbered from 0");
  }
  if (in_one_process(world)) return world.rank() % count;
  const std::optional<int> local = launcher_local_rank();
  if (!local) refuse("the launcher does not say which ranks share a host; give --device-index");
  return *local % count;
}

// The devices of all ranks. Collective.
std::vector<std::string> device_uuids(World& world, Device device) {
  std::string mine;
  together(world, [&] { mine = cuda_devices().at(static_cast<std::size_t>(device.index)).uuid; });
  return all_gather(world, mine);
}

// The first two processes that have one device, the same two on every rank; none when each has its own, or sharing was
// asked for. Collective.
std::optional<std::pair<int, int>> sharers(World& world, const Options& options, Device device) {
  if (in_one_process(world) || options.share_device) return std::nullopt;
  const std::vector<std::string> uuids = device_uuids(world, device);
  for (std::size_t second = 1; second < uuids.size(); ++second) {
    for (std::size_t first = 0; first < second; ++first) {
      if (uuids[first] == uuids[second]) return std::pair(static_cast<int>(first), static_cast<int>(second));
    }
  }
  return std::nullopt;
}

// NCCL refuses two ranks on one device, unless they seem to live on different hosts. Ranks that share one are made to
// seem so, before NCCL is first called: their bytes then go through sockets of this host. Collective. Sets environment
// variables of this process, except those that the user has set.
void let_ranks_share(World& world, Device device) {
  const std::vector<std::string> uuids = device_uuids(world, device);
  const auto ranks_on = [&](const std::string& one) { return std::count(uuids.begin(), uuids.end(), one); };
  const bool shared = std::any_of(uuids.begin(), uuids.end(), [&](const auto& one) { return ranks_on(one) > 1; });
  if (!shared) return;
  const auto mine = static_cast<std::size_t>(world.rank());
  if (ranks_on(uuids[mine]) > 1) setenv("NCCL_HOSTID", concat("orrery-rank-", mine).c_str(), 0);
  if (world.topology().nodes() > 1) return;  // then NCCL needs the real network
  setenv("NCCL_IB_DISABLE", "1", 0);
  setenv("NCCL_SOCKET_IFNAME", "lo", 0);
}

}  // namespace

DeviceChoice choose_device(World& world, const Options& options, const AttentionProblem& problem) {
  if (options.device == "cpu") return {};
  Device device;
  const auto take = [&](std::string_view asked) {
    const std::string reason = cuda_refuses(problem.dtype, problem.head_dim);
    if (!reason.empty()) refuse(asked, reason);
    device = {DeviceKind::cuda, index_of(world, options)};
  };
  if (options.device == "cuda") {
    together(world, [&] { take("--device cuda: "); });
    if (const auto ranks = sharers(world, options, device)) {
      refuse("ranks ", ranks->first, " and ", ranks->second,
             " have one CUDA device between them; start fewer ranks on their host, or give --share-device");
    }
    if (started_by_mpi() && options.share_device) let_ranks_share(world, device);
    return {device, ""};
  }
  std::string reason;
  try {
    take("");
  } catch (const Error& error) {
    reason = error.what();
  }
  const bool has_device = !cuda_devices().empty() || has_cuda_driver();
  bool any_has = false;
  for (const double has : all_gather(world, has_device ? 1.0 : 0.0)) any_has = any_has || has != 0;
  const std::vector<std::string> reasons = all_gather(world, reason);
  for (std::size_t rank = 0; rank < reasons.size(); ++rank) {
    if (reasons[rank].empty()) continue;
    const bool alike = std::all_of(reasons.begin(), reasons.end(), [&](const auto& r) { return r == reasons[rank]; });
    return {{}, any_has ? (alike ? "" : concat("rank ", rank, ": ")) + reasons[rank] : ""};
  }
  if (const auto ranks = sharers(world, options, device)) {
    return {
        {},
        concat("ranks ", ranks->first, " and ", ranks->second, " have one between them, which --share-device allows")};
  }
  if (started_by_mpi() && options.share_device) let_ranks_share(world, device);
  return {device, ""};
}

std::string device_name(Device device) {
  if (device.kind == DeviceKind::cpu) return "cpu";
  return cuda_devices().at(static_cast<std::size_t>(device.index)).name;
}

std::string capability_text(int compute_capability) {
  return concat(compute_capability / 10, ".", compute_capability % 10);
}

}  // namespace orrery::launch
