// Plans: a problem, where it runs, and the layout and strategy chosen for it, with the reason. Made once, the same on
// every rank; the program of a rank is made when it is asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "orrery/costs.hpp"
#include "orrery/layout.hpp"
#include "orrery/ports.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"
#include "orrery/strategy.hpp"
#include "orrery/topology.hpp"

namespace orrery {

struct PlanOptions {
  std::string layout = "auto";
  // A name, with values for some of its options: "ring", "ring:keys=65536,keep=no", "auto". What is not given is chosen
  // by the strategy (docs/strategies.md lists names and options).
  std::string strategy = "auto";
  bool backward = false;
};

struct Plan {
  AttentionProblem problem;
  Topology topology;
  Layout layout;
  std::string strategy;              // its name
  StrategyOptions strategy_options;  // all of them, with the values given and chosen
  std::string reason;  // "zigzag: why this layout; ring: why this strategy"; what the caller chose was "asked for"
  PlanOptions options;
  Costs costs;

  RankProgram program(int rank, Pass pass) const;
  // The tensors that a rank binds, of all passes that are planned. Makes its programs.
  std::vector<Port> ports(int rank) const;
  // "ring:keys=0,backward-keys=0,keep=yes": the strategy with all its options, which asks for the same plan again.
  std::string strategy_text() const;
  // Everything ranks must share, in a fixed order: "seq_len=... layout=zigzag strategy=ring:keys=0 ...".
  std::string text() const;
};

// Chooses where the options say auto, by the rule of docs/strategies.md ("What auto chooses"): with a window contiguous
// and gather (a halo); else ring, over contiguous or zigzag, whichever gives its busiest rank less work.
// Throws ErrorCode::invalid when the problem is refused, with the reason.
//
// Pure: the same arguments give the same plan on every rank. Options of the strategy are chosen for what the topology
// knows; device_topology() of orrery/attention.hpp knows what joins the devices of a world.
Plan make_plan(const AttentionProblem& problem, const Topology& topology, const PlanOptions& options = {},
               const Costs& costs = Costs::cuda());

}  // namespace orrery
