// What Orrery costs beside the arithmetic: the time of a step whose work is next to nothing, and the time to plan one
// rank of a large world.
#include <chrono>

#include "launch/bench.hpp"
#include "launch/devices.hpp"
#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

constexpr int kPlannedRanks = 1024;

// A ring of a few tokens a rank. All time of a run counts, so this is more than what the executor adds to a step: the
// ranks' agreement before the run and the little arithmetic are in it, and with several ranks the latency of their
// messages.
Row step_row(World& world, const Options& options) {
  std::optional<Inputs> inputs;
  together(world, [&] {
    const Sizes tiny = {.seq_len = 8 * world.world_size(), .heads = 1, .head_dim = 16};
    inputs.emplace(generated_problem(options, tiny), options.seed);
  });
  WorkloadOptions how;
  how.plan = {.layout = options.layout, .strategy = options.strategy};
  how.attention.device = choose_device(world, options, inputs->problem());
  how.attention.sm_margin = options.sm_margin;
  Workload workload(world, *inputs, how);
  const Measured measured = measure(workload, options.repeat.value_or(2000), options.warmup.value_or(100), false);
  const Report report = make_report(workload, *inputs, 1, measured, options.verify);
  const double seconds = measured.forward.median() / static_cast<double>(report.costs.steps);
  Row row = make_row("overhead", concat("a step of next to no work, ", counted(world.world_size(), "rank")), report);
  row.measured = concat(seconds_text(seconds), " a step, of ", counted(report.costs.steps, "step"));
  const bool messages = world.world_size() > 1;
  row.against = messages ? "messages included" : "goal 5 us";
  row.json["bench"]["against"] = messages ? "nothing: messages are included" : "5 microseconds a step";
  row.json["bench"]["seconds_per_step"] = seconds;
  return row;
}

// The programs of all ranks are made; together they must hold every pair that the mask admits, each once in number.
Row plan_row(const Options& options) {
  const AttentionProblem problem = generated_problem(options, {.seq_len = 1 << 20});
  const Plan plan =
      make_plan(problem, Topology::single_node(kPlannedRanks), {.layout = options.layout, .strategy = "ring"});
  std::vector<double> seconds;
  std::int64_t pairs = 0;
  for (int rank = 0; rank < kPlannedRanks; ++rank) {
    const auto began = std::chrono::steady_clock::now();
    const RankProgram program = plan.program(rank, Pass::forward);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    pairs += cost(program, problem).pairs;
  }
  const Span all = {0, problem.seq_len, 1};
  const std::int64_t expected = orrery::pairs(problem.mask, {&all, 1}, {&all, 1}) * problem.heads;

  Row row;
  row.name = concat("planning a rank of ", kPlannedRanks);
  row.measured = concat(seconds_text(median(seconds)), " a rank");
  row.against = "goal 10 ms";
  row.wrong = pairs == expected ? 0 : 1;
  row.json = {{"version", kVersion},
              {"problem", problem_json(problem, false, options.seed)},
              {"plan", {{"strategy", plan.strategy}, {"layout", plan.layout.text()}, {"world_size", kPlannedRanks}}},
              {"machine", machine_json(1, "none")},
              {"bench",
               {{"suite", "overhead"},
                {"row", row.name},
                {"against", "10 milliseconds a rank"},
                {"seconds_per_rank", median(seconds)},
                {"pairs", pairs},
                {"pairs_expected", expected}}}};
  return row;
}

}  // namespace

std::vector<Row> bench_overhead(World& world, const Options& options) {
  std::vector<Row> rows;
  on_first_rank(world, [&](World& solo) { rows.push_back(step_row(solo, options)); });
  if (world.world_size() > 1) rows.push_back(step_row(world, options));
  together(world, [&] {
    if (world.rank() == 0) rows.push_back(plan_row(options));
  });
  return rows;
}

}  // namespace orrery::launch
