// What may be at work at one time, and whether it may touch the same memory. The world of the checker runs each rank in
// the order of its program; backends and links go ahead of that order wherever the dependencies (executor/hazards) let
// them. Here the dependencies are judged by those who go ahead furthest: an exchange may begin as soon as what it waits
// for is complete, and may last until somebody waits for it; computation may come as late as it can.
//
// Nothing here derives dependencies or asks who wrote last. Two steps that no wait keeps apart, of which one writes
// what the other touches, are a hazard.
#pragma once

#include <vector>

#include "executor/hazards.hpp"
#include "orrery/schedule.hpp"

namespace orrery::coverage {

struct Hazard {
  int step;   // touches
  int other;  // ... while this earlier one may still be at work
  Slice slice;
};

// The hazards of a program whose backend waits as the dependencies say, at most one a pair of steps. At least one of
// the two is an exchange, for computation runs in program order.
std::vector<Hazard> hazards(const RankProgram& program, const Dependencies& dependencies);

}  // namespace orrery::coverage
