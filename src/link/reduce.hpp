// The arithmetic of World::all_reduce: always in the order of the ranks, so that a result has the same bits every time.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "orrery/world.hpp"

namespace orrery {

// into[i] becomes the reduction of every rank's number i. `records` are doubles, as many from every rank as `into` has.
void reduce(std::span<const std::vector<std::byte>> records, Reduction reduction, std::span<double> into);

}  // namespace orrery
