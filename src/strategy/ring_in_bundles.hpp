// A ring of short blocks, which takes several of them together.
#pragma once

#include <cstdint>

#include "orrery/strategy.hpp"
#include "strategy/group.hpp"

namespace orrery {

// How many blocks may make a bundle in this pass: as many as its option `keys` or `backward-keys` allows. The answer is
// 1, and blocks come one by one, in four cases: a block has more than half of these keys; fewer than two blocks arrive
// while one is computed; there are two ranks; or shards are stripes, of which a query sees only one row in P, or have
// many spans.
std::int64_t blocks_together(const Placement& placement, const Group& group, Pass pass);

// `together` is above 1, and the same on all ranks of the group.
RankProgram build_ring_in_bundles(const Placement& placement, const Group& group, Pass pass, int rank,
                                  std::int64_t together);

}  // namespace orrery
