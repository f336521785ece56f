#include "launch/turns.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
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

}  // namespace

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

std::string ranks_take_turns(World& world, Device device, int threads) {
  Seat mine{.device = {}, .cores = {}, .threads = threads};
  if (device.kind == DeviceKind::cuda) {
    mine.device = cuda_devices().at(static_cast<std::size_t>(device.index)).uuid;
  } else {
    mine.cores = usable_cores();
  }
  // As text: the UUID, or the number of threads and the cores.
  std::string text = mine.device;
  if (text.empty()) {
    text = concat(threads);
    for (const int core : mine.cores) text += concat(' ', core);
  }
  const std::vector<std::string> texts = all_gather(world, text);
  if (world.rank() != 0) return {};
  std::vector<Seat> seats;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    Seat& seat = seats.emplace_back();
    seat.node = world.topology().node_of_rank[rank];
    if (device.kind == DeviceKind::cuda) {
      seat.device = texts[rank];
      continue;
    }
    std::istringstream numbers(texts[rank]);
    numbers >> seat.threads;
    for (int core = 0; numbers >> core;) seat.cores.push_back(core);
  }
  return turns_text(seats);
}

}  // namespace orrery::launch
