#include "launch/devices.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

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

// The number of this rank's device; refused where it has none.
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
  if (*local < count) return *local;
  if (options.share_device) return *local % count;
  refuse("rank ", *local, " of this host, counting from 0, has no CUDA device to itself: there ",
         count == 1 ? "is " : "are ", count, "; start fewer ranks, or give --share-device");
}

}  // namespace

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
  return all ? device : Device{};
}

std::string device_name(Device device) {
  if (device.kind == DeviceKind::cpu) return "cpu";
  return cuda_devices().at(static_cast<std::size_t>(device.index)).name;
}

std::string capability_text(int compute_capability) {
  return concat(compute_capability / 10, ".", compute_capability % 10);
}

}  // namespace orrery::launch
