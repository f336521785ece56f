#include "orrery/plan.hpp"

#include "orrery/error.hpp"
#include "orrery/strategy.hpp"

namespace orrery {
namespace {

struct Choice {
  std::string layout, strategy, reason;
};

// A window reaches a few neighbours only, when neighbours own neighbouring positions; a causal mask gives later
// positions more work, which zigzag evens out; everything else is even already.
Choice choose(const Mask& mask, const PlanOptions& options) {
  Choice choice{options.layout, options.strategy, "as asked"};
  const bool free_layout = options.layout == "auto", free_strategy = options.strategy == "auto";
  if (!free_layout && !free_strategy) return choice;
  if (mask.has_window()) {
    if (free_layout) choice.layout = "contiguous";
    if (free_strategy) choice.strategy = "gather";
    choice.reason = "a window reaches near neighbours only: contiguous shards and a halo";
  } else if (mask.is_causal()) {
    if (free_layout) choice.layout = "zigzag";
    if (free_strategy) choice.strategy = "ring";
    choice.reason = "zigzag gives every rank the same causal work; the ring keeps memory constant";
  } else {
    if (free_layout) choice.layout = "contiguous";
    if (free_strategy) choice.strategy = "ring";
    choice.reason = "all positions have the same work; the ring keeps memory constant";
  }
  return choice;
}

Placement placement(const Plan& plan) {
  return {plan.problem,
          plan.layout,
          plan.topology,
          plan.options.backward && plan.options.keep_key_value,
          plan.options.keys_per_step,
          plan.options.backward_keys_per_step};
}

}  // namespace

Plan make_plan(const AttentionProblem& problem, const Topology& topology, const PlanOptions& options) {
  problem.validate();
  topology.validate();
  const Choice choice = choose(problem.mask, options);
  Plan plan{problem,         topology,      Layout::make(choice.layout, problem.mask, topology.world_size),
            choice.strategy, choice.reason, options};
  const Strategy& strategy = find_strategy(plan.strategy);
  for (std::int64_t keys : {options.keys_per_step, options.backward_keys_per_step}) {
    if (keys < 0) refuse(keys, " keys a step");
  }
  const std::string reason = strategy.rejects(placement(plan));
  if (!reason.empty()) refuse("strategy ", strategy.name, " cannot serve this problem: ", reason);
  return plan;
}

RankProgram Plan::program(int rank, Pass pass) const {
  ORRERY_CHECK(rank >= 0 && rank < topology.world_size, "no rank ", rank, " of ", topology.world_size);
  return find_strategy(strategy).build(placement(*this), pass, rank);
}

std::string Plan::text() const {
  const bool in_groups = options.keys_per_step > 0 || options.backward_keys_per_step > 0;
  const auto rate = [](const LinkRate& link) { return static_cast<std::int64_t>(link.bytes_per_second); };
  const std::string links =
      in_groups ? concat(" inside_node=", rate(topology.inside_node), " between_nodes=", rate(topology.between_nodes))
                : "";
  return concat(problem.text(), " world_size=", topology.world_size, " layout=", layout.text(), " strategy=", strategy,
                " backward=", options.backward ? 1 : 0, " keep_key_value=", options.keep_key_value ? 1 : 0,
                " keys_per_step=", options.keys_per_step, " backward_keys_per_step=", options.backward_keys_per_step,
                links);
}

}  // namespace orrery
