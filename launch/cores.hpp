// Whether the threads that compute have cores to run on.
#pragma once

#include "orrery/world.hpp"

namespace orrery::launch {

// Collective. A note, in one line of the first rank, where a rank computes with more threads than its affinity mask has
// cores, or the ranks of a node with more than their masks together. Ranks of one thread each are not told: so does
// whoever tries many ranks on a small machine.
void note_crowded_cores(World& world, int threads);

}  // namespace orrery::launch
