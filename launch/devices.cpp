#include "launch/devices.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/machine.hpp"

namespace orrery::launch {
namespace {

// The launcher's number for this process among those on its host: Open MPI, MPICH and Intel MPI, Slurm.
std::optional<int> local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    int rank = 0;
    const char* end = text + std::strlen(text);
    const auto [stop, fault] = std::from_chars(text, end, rank);
    if (fault == std::errc() && stop == end && rank >= 0) return rank;
  }
  return std::nullopt;
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
  if (!started_by_mpi()) return world.rank() % count;
  const std::optional<int> local = local_rank();
  if (!local) refuse("the launcher does not say which ranks share a host; give --device-index");
  return *local % count;
}

// The first two processes that have one device, the same two on every rank; none when each has its own, or sharing was
// asked for. Collective.
std::optional<std::pair<int, int>> sharers(World& world, const Options& options, Device device) {
  if (!started_by_mpi() || options.share_device) return std::nullopt;
  const std::vector<std::string> uuids =
      all_gather(world, cuda_devices().at(static_cast<std::size_t>(device.index)).uuid);
  for (std::size_t second = 1; second < uuids.size(); ++second) {
    for (std::size_t first = 0; first < second; ++first) {
      if (uuids[first] == uuids[second]) return std::pair(static_cast<int>(first), static_cast<int>(second));
    }
  }
  return std::nullopt;
}

// Enough for the kernels to forget that they fetch and put back the state of their rows.
constexpr std::int64_t kKeysPerStep = 32768;

// This rank's device reaches those of all ranks without PCIe, as far as this process sees. Collective.
bool reaches_all(World& world, Device device) {
  const std::vector<CudaDeviceInfo> mine = cuda_devices();
  bool all = true;
  for (const std::string& uuid : all_gather(world, mine.at(static_cast<std::size_t>(device.index)).uuid)) {
    const auto peer = std::find_if(mine.begin(), mine.end(), [&](const auto& info) { return info.uuid == uuid; });
    all = all && peer != mine.end() && joined(device, {DeviceKind::cuda, static_cast<int>(peer - mine.begin())});
  }
  return all;
}

}  // namespace

std::int64_t choose_keys_per_step(World& world, const Options& options, Device device) {
  if (options.keys_per_step) return *options.keys_per_step;
  if (device.kind == DeviceKind::cpu) return 0;
  bool all = true;
  for (const double reaches : all_gather(world, reaches_all(world, device) ? 1.0 : 0.0)) all = all && reaches != 0;
  return all ? kKeysPerStep : 0;
}

Device choose_device(World& world, const Options& options, const AttentionProblem& problem) {
  if (options.device == "cpu") return {};
  Device device;
  const auto take = [&] {
    const std::string reason = cuda_refuses(problem.dtype, problem.head_dim);
    if (!reason.empty()) refuse("--device cuda: ", reason);
    device = {DeviceKind::cuda, index_of(world, options)};
  };
  if (options.device == "cuda") {
    together(world, take);
    if (const auto ranks = sharers(world, options, device)) {
      refuse("ranks ", ranks->first, " and ", ranks->second,
             " have one CUDA device between them; start fewer ranks on their host, or give --share-device");
    }
    return device;
  }
  bool mine = true;
  try {
    take();
  } catch (const Error&) {
    mine = false;
  }
  bool all = true;
  for (const double has : all_gather(world, mine ? 1.0 : 0.0)) all = all && has != 0;
  return all && !sharers(world, options, device) ? device : Device{};
}

std::string device_name(Device device) {
  if (device.kind == DeviceKind::cpu) return "cpu";
  return cuda_devices().at(static_cast<std::size_t>(device.index)).name;
}

std::string capability_text(int compute_capability) {
  return concat(compute_capability / 10, ".", compute_capability % 10);
}

}  // namespace orrery::launch
