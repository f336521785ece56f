// One clock for the timelines of all ranks. The processes of a host share its steady clock; those of different hosts do
// not. A barrier bounds how far two clocks are apart: no rank leaves one before every other has entered it.
#pragma once

#include <vector>

#include "orrery/trace.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

// When a rank entered and left each of some barriers, by its own clock.
struct BarrierTimes {
  std::vector<double> entered, left;
};

// What to take from the clock of each node to read that of the first, and how far that may be off.
struct ClockOffset {
  double seconds = 0, error = 0;
};
// By node; `node_of_rank` and `times` by rank. The first node is that of rank 0.
std::vector<ClockOffset> clock_offsets(const std::vector<int>& node_of_rank, const std::vector<BarrierTimes>& times);

// Collective. Puts the timelines, all ranks' on rank 0, on the clock of rank 0's host, whose zero is the first run's
// beginning. On other ranks `timelines` is empty.
void share_clock(World& world, std::vector<Timeline>& timelines);

}  // namespace orrery::launch
