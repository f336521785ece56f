// `check`: proves the plan of a problem and a placement, all ranks in this one process, and says what was proved.
#include "orrery/check.hpp"

#include <chrono>
#include <nlohmann/json.hpp>

#include "launch/inputs.hpp"
#include "launch/outputs.hpp"
#include "launch/progress.hpp"
#include "launch/report.hpp"
#include "launch/text.hpp"
#include "launch/verbs.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

// What a proof speaks of, over all ranks and passes.
struct Extent {
  std::int64_t steps = 0, pairs = 0;
};

std::vector<Pass> passes_of(const Plan& plan) {
  if (plan.options.backward) return {Pass::forward, Pass::backward};
  return {Pass::forward};
}

// As devices of the kind run it whose programs were asked for; as it is planned, when those of all kinds were.
RankProgram program_of(const Plan& plan, int rank, Pass pass, const Options& options) {
  RankProgram program = plan.program(rank, pass);
  return options.device == "cuda" ? fuse(program) : program;
}

Extent extent_of(const Plan& plan, const Options& options) {
  Extent extent;
  for (int rank = 0; rank < plan.topology.world_size; ++rank) {
    for (const Pass pass : passes_of(plan)) {
      const ProgramCost costs = cost(program_of(plan, rank, pass, options), plan.problem);
      extent.steps += costs.steps;
      extent.pairs += costs.pairs;
    }
  }
  return extent;
}

nlohmann::ordered_json findings_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"fault", to_string(finding.fault)},
                    {"pass", to_string(finding.pass)},
                    {"rank", finding.rank},
                    {"step", finding.step},
                    {"fused", finding.fused},
                    {"message", finding.message}});
  }
  return list;
}

}  // namespace

int check(const Options& options) {
  const Inputs inputs(options);
  if (!inputs.note().empty()) print_note(inputs.note());
  Outputs outputs(options);
  std::optional<Progress> progress(std::in_place, true, "planning");
  const Plan plan = make_plan(inputs.problem(), Topology::single_node(options.world_size),
                              {.layout = options.layout, .strategy = options.strategy, .backward = options.backward});

  progress->now("proving");
  const auto began = std::chrono::steady_clock::now();
  const std::vector<Finding> findings =
      check(plan, {.planned = options.device != "cuda", .fused = options.device != "cpu"});
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const Extent extent = extent_of(plan, options);
  progress.reset();

  if (outputs.json()) {
    const nlohmann::ordered_json json = {
        {"version", kVersion},
        {"problem", problem_json(plan.problem, options.backward, options.seed)},
        {"plan", {{"strategy", plan.strategy}, {"layout", plan.layout.text()}, {"world_size", options.world_size}}},
        {"proof",
         {{"proved", findings.empty()},
          {"steps", extent.steps},
          {"pairs", extent.pairs},
          {"seconds", seconds},
          {"findings", findings_json(findings)}}}};
    outputs.json()->write(dump(json));
  }
  if (outputs.text()) {
    if (options.print_rank) {
      for (const Pass pass : passes_of(plan)) {
        print(to_text(program_of(plan, *options.print_rank, pass, options)) + "\n");
      }
    }
    for (const Finding& finding : findings) print(to_text(finding) + "\n");
    if (findings.empty()) {
      print(concat("proved: ", strategy_of(plan), " over ", plan.layout.text(), " on ",
                   counted(options.world_size, "rank"), options.backward ? ", forward and backward" : ", forward", "; ",
                   problem_text(plan.problem), "\n        ", counted(extent.steps, "step"), ", ", extent.pairs,
                   " pairs of (query head, query) and key, each exactly once, in ", seconds_text(seconds), "\n"));
    }
  }
  if (!findings.empty()) {
    fail(ErrorCode::bug, "this plan is wrong: ", counted(static_cast<std::int64_t>(findings.size()), "finding"), "; ",
         to_text(findings.front()));
  }
  return 0;
}

}  // namespace orrery::launch
