// Strategies: pure functions from a problem and a placement to each rank's program. One is asked for one rank at a
// time, so a run of a thousand ranks builds a thousandth of the world in each.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "orrery/layout.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"
#include "orrery/topology.hpp"

namespace orrery {

struct Placement {
  const AttentionProblem& problem;
  const Layout& layout;
  const Topology& topology;
  bool keep_key_value = false;  // a backward run follows, and the forward run may keep key-values for it
  std::int64_t keys_per_step = 0, backward_keys_per_step = 0;  // those of PlanOptions
};

struct Strategy {
  std::string_view name;
  std::string_view summary;
  // Why this strategy cannot serve the placement, in one sentence; empty when it can.
  std::string (*rejects)(const Placement&);
  RankProgram (*build)(const Placement&, Pass, int rank);
};

// All strategies, in the order in which they are listed to people.
std::span<const Strategy> strategies();
// Refused (ErrorCode::invalid) with the list of names when there is none of that name.
const Strategy& find_strategy(std::string_view name);

}  // namespace orrery
