// Programs of a plan's strategy over groups, which between them have every rank once.
#pragma once

#include <vector>

#include "orrery/plan.hpp"
#include "strategy/gather.hpp"
#include "strategy/ring.hpp"

namespace orrery::test {

inline std::vector<RankProgram> programs_over(const Plan& plan, const std::vector<Group>& groups, Pass pass) {
  const Placement placement{plan.problem, plan.layout,           plan.topology,
                            plan.costs,   plan.strategy_options, plan.options.backward};
  std::vector<RankProgram> programs(static_cast<std::size_t>(plan.topology.world_size));
  for (const Group& group : groups) {
    for (int place = 0; place < group.size(); ++place) {
      const int rank = group.at(place);
      programs[static_cast<std::size_t>(rank)] = plan.strategy == "ring" ? build_ring(placement, group, pass, rank)
                                                                         : build_gather(placement, group, pass, rank);
    }
  }
  return programs;
}

}  // namespace orrery::test
