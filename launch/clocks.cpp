#include "launch/clocks.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <span>

namespace orrery::launch {
namespace {

constexpr int kBarriers = 32;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of all ranks. Collective.
std::vector<BarrierTimes> time_barriers(World& world) {
  std::vector<double> mine(2 * kBarriers);
  for (std::size_t i = 0; i < mine.size(); i += 2) {
    mine[i] = now();
    world.barrier();
    mine[i + 1] = now();
  }
  std::vector<BarrierTimes> all;
  for (const std::vector<std::byte>& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    ORRERY_CHECK(bytes.size() == mine.size() * sizeof(double), "ranks timed different numbers of barriers");
    std::memcpy(mine.data(), bytes.data(), bytes.size());
    BarrierTimes& times = all.emplace_back();
    for (std::size_t i = 0; i < mine.size(); i += 2) {
      times.entered.push_back(mine[i]);
      times.left.push_back(mine[i + 1]);
    }
  }
  return all;
}

}  // namespace

std::vector<ClockOffset> clock_offsets(const std::vector<int>& node_of_rank, const std::vector<BarrierTimes>& times) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  struct Bounds {
    double least = -kFar, most = kFar;
  };
  std::vector<Bounds> nodes(static_cast<std::size_t>(*std::max_element(node_of_rank.begin(), node_of_rank.end())) + 1);
  const BarrierTimes& first = times.front();
  for (std::size_t rank = 0; rank < times.size(); ++rank) {
    Bounds& node = nodes[static_cast<std::size_t>(node_of_rank[rank])];
    for (std::size_t i = 0; i < first.left.size(); ++i) {
      node.least = std::max(node.least, times[rank].entered[i] - first.left[i]);
      node.most = std::min(node.most, times[rank].left[i] - first.entered[i]);
    }
  }
  std::vector<ClockOffset> offsets;
  offsets.reserve(nodes.size());
  for (const Bounds& node : nodes) offsets.push_back({(node.least + node.most) / 2, (node.most - node.least) / 2});
  offsets[static_cast<std::size_t>(node_of_rank.front())] = {};
  return offsets;
}

void share_clock(World& world, std::vector<Timeline>& timelines) {
  const std::vector<int>& node_of_rank = world.topology().node_of_rank;
  if (world.topology().nodes() > 1) {
    const std::vector<BarrierTimes> times = time_barriers(world);
    const std::vector<ClockOffset> offsets = clock_offsets(node_of_rank, times);
    for (Timeline& t : timelines) {
      const int node = node_of_rank[static_cast<std::size_t>(t.rank)];
      t.began -= offsets[static_cast<std::size_t>(node)].seconds;
      t.clock_error = offsets[static_cast<std::size_t>(node)].error;
    }
  }
  double origin = std::numeric_limits<double>::infinity();
  for (const Timeline& t : timelines) origin = std::min(origin, t.began);
  for (Timeline& t : timelines) t.began -= origin;
}

}  // namespace orrery::launch
