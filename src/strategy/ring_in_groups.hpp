// A ring of short blocks, which takes several of them together.
#pragma once

#include <cstdint>

#include "orrery/strategy.hpp"

namespace orrery {

// How many blocks may make a group in this pass: as many as its option `keys` or `backward-keys` allows.
// The answer is 1, and blocks come one
// by one, in four cases: a block has more than half of these keys; fewer than two blocks arrive while one is computed;
// there are two ranks; or shards are stripes, of which a query sees only one row in P, or have many spans.
std::int64_t blocks_together(const Placement& placement, Pass pass);

// `together` is above 1, and the same on all ranks.
RankProgram build_ring_in_groups(const Placement& placement, Pass pass, int rank, std::int64_t together);

}  // namespace orrery
