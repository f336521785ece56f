// The gather, for strategies that fetch from some ranks.
#pragma once

#include "orrery/strategy.hpp"
#include "strategy/group.hpp"

namespace orrery {

// The program of a member, whose queries meet the keys of the group.
RankProgram build_gather(const Placement& placement, const Group& group, Pass pass, int rank);

}  // namespace orrery
