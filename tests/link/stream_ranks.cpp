// A program of MPI processes that does one thing on the device link LINK, as its argument LINK/CASE says: what conforms
// ends with 0, what goes wrong on purpose ends as mpi_failure.sh expects. Where a rank has no device, all ranks end
// with 77.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <map>

#include "link/stream_conformance.hpp"
#include "link/stream_traffic.hpp"
#include "support/shared_devices.hpp"

namespace orrery::test {
namespace {

constexpr int kSkipped = 77;
constexpr double kPatience = 1.5;  // seconds, of a wait for what never comes
constexpr double kWatchdog = 15;   // seconds: enough to open a link in
constexpr std::int64_t kBlock = 1 << 20;

// Whole rounds of a ring, awaited one by one; rank 1 calls `event` in the middle of it.
template <typename Event>
void ring_with(World& world, Device device, Event&& event) {
  DeviceBytes out(device, kBlock), in(device, kBlock);
  Player player(world, device, {{0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}}});
  for (int round = 0; round < 20; ++round) {
    if (round == 10 && world.rank() == 1) event();
    player.begin();
    player.start(0);
    player.session().wait(0, kPatience);
    player.end();
  }
}

void sleep_long() {
  sleep(60);
}

// Ranks whose messages would fit, but belong to different runs.
void runs_differ(World& world, Device device) {
  DeviceBytes out(device, kBlock), in(device, kBlock);
  Player player(world, device, {{0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}}});
  for (std::uint64_t call = 0; call < 3; ++call) {
    player.begin({7, call, call == 2 && world.rank() == 1 ? 1u : 0u});
    player.start(0);
    player.session().wait(0, kPatience);
    player.end();
  }
}

// Nobody waits on the host; the caller's stream hangs in the exchange until the link itself gives up.
void unwatched(World& world, Device device) {
  DeviceBytes out(device, kBlock), in(device, kBlock);
  Player player(world, device, {{0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}}});
  player.run_each();
  if (world.rank() == 1) sleep_long();
  player.run_each();
  player.begin();
}

const std::map<std::string, void (*)(World&, Device)> kCases = {
    {"conform", conform_streams},
    {"silent", [](World& world, Device device) { ring_with(world, device, sleep_long); }},
    {"killed", [](World& world, Device device) { ring_with(world, device, [] { raise(SIGKILL); }); }},
    {"unwatched", unwatched},
    {"runs-differ", runs_differ},
};

// Ranks of a node take its devices in turn, and share them when there are fewer. -1 when any rank has none.
int device_of(World& world) {
  const auto here = static_cast<double>(cuda_devices().size());
  const std::vector<double> devices = all_gather(world, here);
  if (*std::min_element(devices.begin(), devices.end()) == 0) return -1;
  const std::vector<int>& nodes = world.topology().node_of_rank;
  const auto before = std::count(nodes.begin(), nodes.begin() + world.rank(), nodes[world.rank()]);
  return static_cast<int>(before % static_cast<long>(here));
}

int run(const std::string& link, const std::string& name) {
  const std::unique_ptr<World> world = open_mpi_world({name == "unwatched" ? kWatchdog : kWait, link});
  try {
    const int index = device_of(*world);
    if (index < 0) {
      if (world->rank() == 0) std::printf("skipped: not every rank has a CUDA device\n");
      return kSkipped;
    }
    let_ranks_share_devices(*world);
    const Device device{DeviceKind::cuda, index};
    const StreamLink& opened = world->stream_link(device, 1);
    expect(opened.name() == link || world->world_size() == 1, "the link that was asked for, not ", opened.name());
    kCases.at(name)(*world, device);
  } catch (const Error& error) {
    world->abort(error.code(), error.what());
  }
  return 0;
}

}  // namespace
}  // namespace orrery::test

int main(int argc, char** argv) {
  const std::string argument = argc > 1 ? argv[1] : "";
  const std::size_t slash = argument.find('/');
  const std::string link = argument.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : argument.substr(slash + 1);
  if (orrery::test::kCases.count(name) == 0) {
    std::fprintf(stderr, "usage: test_stream_link_ranks nccl|mpi/conform|silent|killed|unwatched|runs-differ\n");
    return 2;
  }
  try {
    return orrery::test::run(link, name);
  } catch (const std::exception& error) {  // the world was closed on the way here
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
