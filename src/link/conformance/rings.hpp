// Blocks that travel around a ring of ranks on several lanes at once.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "link/conformance/traffic.hpp"

namespace orrery::conformance {

constexpr int kRingLanes = 3;

// A block a lane travels around the ring; slots take turns, so step k sends what step k-1 received.
struct Rings {
  explicit Rings(World& world_, bool chained) : world(world_), steps(world_.world_size() - 1) {
    for (int lane = 0; lane < kRingLanes; ++lane) {
      for (Bytes& slot : slots[lane]) slot.resize(bytes(lane));
    }
    for (int step = 0; step < steps; ++step) {
      for (int lane = 0; lane < kRingLanes; ++lane) {
        LinkExchange exchange;
        exchange.lane = lane;
        exchange.sends.push_back({right_of(world), whole(slots[lane][step % 2])});
        exchange.receives.push_back({left_of(world), whole(slots[lane][(step + 1) % 2])});
        if (chained && step > 0) exchange.after.push_back(index(step - 1, lane));
        exchanges.push_back(exchange);
      }
    }
    session = world.link().prepare(exchanges);
  }

  static int index(int step, int lane) { return step * kRingLanes + lane; }
  std::int64_t bytes(int lane) const { return lane == 0 ? 600000 / world.world_size() : lane == 1 ? 16 : 5000; }
  int owner_after(int step) const { return (world.rank() + 2 * world.world_size() - 1 - step) % world.world_size(); }

  void fill(int run) {  // in place: the session knows these addresses
    for (int lane = 0; lane < kRingLanes; ++lane) {
      const Bytes mine = bytes_of(world.rank(), lane + 10 * run, bytes(lane));
      std::copy(mine.begin(), mine.end(), slots[lane][0].begin());
    }
  }
  void expect_after(int step, int lane, int run) const {
    expect_bytes(slots[lane][(step + 1) % 2], owner_after(step), lane + 10 * run);
  }

  World& world;
  int steps;
  Bytes slots[kRingLanes][2];
  std::vector<LinkExchange> exchanges;
  std::unique_ptr<LinkSession> session;
};

}  // namespace orrery::conformance
