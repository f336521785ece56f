// What a link costs: latency, bandwidth, and how much of a transfer hides behind computation.
#pragma once

#include "orrery/world.hpp"

namespace orrery::test {

// Rank 0 prints half round trips of 8 B and 16 MiB between ranks 0 and 1, and the time from start() to the end of
// wait().
void print_figures(World& world);

// Throws when a 16 MiB exchange does not proceed while its ranks are busy elsewhere without using their cores, as while
// a GPU computes. (On one machine a transfer is a copy by a core, so computation on all cores could not hide it.)
void expect_overlap(World& world);

}  // namespace orrery::test
