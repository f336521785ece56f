// A ring of short blocks, which takes several of them together.
#pragma once

#include <cstdint>

#include "orrery/strategy.hpp"

namespace orrery {

// How many blocks may make a group in this pass: as many as its keys a step hold. 1 where blocks are to come one by
// one: when one has more than half of these keys, when no two arrive while one is computed, when there are two ranks,
// and where shards are stripes, of which a query would still see one row in P, or many spans.
std::int64_t blocks_together(const Placement& placement, Pass pass);

// `together` is above 1, and the same on all ranks.
RankProgram build_ring_in_groups(const Placement& placement, Pass pass, int rank, std::int64_t together);

}  // namespace orrery
