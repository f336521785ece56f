// Whether ranks have to take turns. A rank that waits for a transfer cannot tell whether the other end is late because
// of the link, or because another rank has its device or its cores.
#pragma once

#include <string>
#include <vector>

#include "orrery/device.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

// What a rank computes on: a CUDA device, or the cores that its process may use, by their numbers.
struct Seat {
  int node = 0;
  std::string device;      // its UUID; empty on a CPU
  std::vector<int> cores;  // rising
  int threads = 1;         // that compute
};

// "4 ranks take turns on 2 cores", or on a CUDA device; empty where every rank has its own.
std::string turns_text(const std::vector<Seat>& seats);

// Collective. The same of the ranks of this world; empty on other ranks than rank 0.
std::string ranks_take_turns(World& world, Device device, int threads);

}  // namespace orrery::launch
