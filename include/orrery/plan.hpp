// Plans: a problem, where it runs, and the layout and strategy chosen for it, with the reason. Made once, the same on
// every rank; the program of a rank is made when it is asked for.
#pragma once

#include <cstdint>
#include <string>

#include "orrery/layout.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"
#include "orrery/topology.hpp"

namespace orrery {

struct PlanOptions {
  std::string layout = "auto";
  std::string strategy = "auto";
  bool backward = false;
  // With backward: start the backward ring from the key-values that the forward ring received last. They stay in the
  // workspace between the two runs and save one transfer. Without it every backward run starts from the caller's
  // tensors.
  bool keep_key_value = true;
  // A ring takes blocks together as long as a group of them has at most so many keys: one attention step, one exchange
  // and one launch instead of several. That needs memory for two groups, and backward for the gradients of two. A rank
  // waits for a whole group, so groups grow no faster than the topology's links bring them. When either pass takes
  // blocks together, no key-values are kept between the passes. 0: one block a step.
  std::int64_t keys_per_step = 0, backward_keys_per_step = 0;
};

struct Plan {
  AttentionProblem problem;
  Topology topology;
  Layout layout;
  std::string strategy;
  std::string reason;  // "zigzag: why this layout; ring: why this strategy"; what the caller chose was "asked for"
  PlanOptions options;

  RankProgram program(int rank, Pass pass) const;
  // Everything ranks must share, in a fixed order: "seq_len=... layout=zigzag strategy=ring ...".
  std::string text() const;
};

// Chooses where the options say auto, by the rule of docs/strategies.md ("What auto chooses"): with a window contiguous
// and gather (a halo); else ring, over contiguous or zigzag, whichever gives its busiest rank less work.
// Throws ErrorCode::invalid when the problem is refused, with the reason.
Plan make_plan(const AttentionProblem& problem, const Topology& topology, const PlanOptions& options = {});

}  // namespace orrery
