// What ranks compute on, and who shares it. A rank that waits for a transfer cannot tell whether the other end is late
// because of the link, or because another rank has its device or its cores. And threads that share cores are slow.
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
  std::vector<int> cores;  // rising; none: not known
  int threads = 1;         // that compute
};

// Collective. The seats of all ranks, on every rank.
std::vector<Seat> seats_of(World& world, Device device, int threads);

// "4 ranks take turns on 2 cores", or on a CUDA device; empty where every rank has its own.
std::string turns_text(const std::vector<Seat>& seats);

// Where a rank computes with more threads than it has cores, or the ranks of a node with more than they have together;
// empty elsewhere. Ranks of one thread each are not told: so does whoever tries many ranks on a small machine.
std::string crowd_text(const std::vector<Seat>& seats);
// Collective. The same as a note, in one line of rank 0.
void note_crowded_cores(World& world, Device device, int threads);

}  // namespace orrery::launch
