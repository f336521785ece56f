#include "launch/seats.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "launch/text.hpp"

namespace orrery::launch {
namespace {

// That this thread may use.
std::vector<int> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

std::string on_cores(std::int64_t threads, std::size_t cores) {
  return concat(counted(threads, "thread"), " on ", counted(static_cast<std::int64_t>(cores), "core"));
}

}  // namespace

std::vector<Seat> seats_of(World& world, Device device, int threads) {
  // As text: the threads, then the UUID or the cores.
  std::string mine = concat(threads);
  if (device.kind == DeviceKind::cuda) {
    mine += ' ' + cuda_devices().at(static_cast<std::size_t>(device.index)).uuid;
  } else {
    for (const int core : usable_cores()) mine += concat(' ', core);
  }
  std::vector<Seat> seats;
  for (const std::string& text : all_gather(world, mine)) {
    Seat& seat = seats.emplace_back();
    seat.node = world.topology().node_of_rank[seats.size() - 1];
    std::istringstream words(text);
    words >> seat.threads;
    if (device.kind == DeviceKind::cuda) {
      words >> seat.device;
    } else {
      for (int core = 0; words >> core;) seat.cores.push_back(core);
    }
  }
  return seats;
}

std::string turns_text(const std::vector<Seat>& seats) {
  for (const Seat& seat : seats) {
    std::int64_t ranks = 0;
    double threads = 0;
    for (const Seat& other : seats) {
      if (!seat.device.empty()) {
        ranks += other.device == seat.device ? 1 : 0;
        continue;
      }
      if (other.node != seat.node || other.cores.empty()) continue;
      std::vector<int> both;
      std::set_intersection(seat.cores.begin(), seat.cores.end(), other.cores.begin(), other.cores.end(),
                            std::back_inserter(both));
      if (both.empty()) continue;
      ++ranks;
      threads += other.threads * static_cast<double>(both.size()) / static_cast<double>(other.cores.size());
    }
    if (ranks < 2) continue;
    if (!seat.device.empty()) return concat(counted(ranks, "rank"), " take turns on one CUDA device");
    const auto cores = static_cast<std::int64_t>(seat.cores.size());
    if (threads > static_cast<double>(cores)) {
      return concat(counted(ranks, "rank"), " take turns on ", counted(cores, "core"));
    }
  }
  return {};
}

std::string crowd_text(const std::vector<Seat>& seats) {
  if (std::none_of(seats.begin(), seats.end(), [](const Seat& seat) { return seat.threads > 1; })) return {};
  struct Node {
    std::int64_t ranks = 0, threads = 0;
    std::set<int> cores;
  };
  std::map<int, Node> nodes;
  for (std::size_t rank = 0; rank < seats.size(); ++rank) {
    const Seat& seat = seats[rank];
    const std::size_t cores = seat.cores.size();
    if (cores > 0 && seat.threads > static_cast<std::int64_t>(cores)) {
      return concat("rank ", rank, " computes with ", on_cores(seat.threads, cores),
                    cores == 1 && seats.size() > 1 ? "; mpirun --bind-to none binds no rank to a core" : "");
    }
    Node& node = nodes[seat.node];
    ++node.ranks;
    node.threads += seat.threads;
    node.cores.insert(seat.cores.begin(), seat.cores.end());
  }
  for (const auto& [number, node] : nodes) {
    if (node.cores.empty() || node.threads <= static_cast<std::int64_t>(node.cores.size())) continue;
    return concat("the ", counted(node.ranks, "rank"), " of a node compute with ",
                  on_cores(node.threads, node.cores.size()));
  }
  return {};
}

void note_crowded_cores(World& world, Device device, int threads) {
  const std::vector<Seat> seats = seats_of(world, device, threads);
  if (world.rank() != 0) return;
  const std::string note = crowd_text(seats);
  if (!note.empty()) print_note(note);
}

}  // namespace orrery::launch
