// A forward ring of short blocks, which takes several of them together.
#pragma once

#include <cstdint>

#include "orrery/strategy.hpp"

namespace orrery {

// How many blocks may make a group: as many as keys_per_step holds. 1 where blocks are to come one by one: when one
// alone has so many keys, when there are two ranks, and where shards are stripes or many spans.
std::int64_t blocks_together(const Placement& placement);

// The forward program. `together` is above 1.
RankProgram build_ring_in_groups(const Placement& placement, int rank, std::int64_t together);

}  // namespace orrery
