// The ring, for strategies that move blocks around a ring of some ranks.
#pragma once

#include "orrery/strategy.hpp"
#include "strategy/group.hpp"

namespace orrery {

// The program of a member. Queries of the group meet the keys of the group; the mask admits no others to them, or they
// are another step's.
RankProgram build_ring(const Placement& placement, const Group& group, Pass pass, int rank);

}  // namespace orrery
