// What Orrery costs beside the arithmetic: the time of a step whose work is next to nothing, on a CUDA device what of
// it is the host's, and the time to plan one rank of a large world.
#include <chrono>
#include <functional>

#include "launch/bench.hpp"
#include "launch/devices.hpp"
#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/strategy.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

constexpr int kPlannedRanks = 1024;
constexpr int kRepeat = 2000, kWarmup = 100;

// A few tokens a rank, so that next to nothing is computed.
AttentionProblem tiny_problem(const World& world, const Options& options) {
  return generated_problem(options, {.seq_len = 8 * world.world_size(), .heads = 1, .head_dim = 16});
}

// One thread and, unless told otherwise, a block a step, whatever suits the devices: it is the step that is measured.
WorkloadOptions how_to_run(World& world, Options options, const AttentionProblem& problem) {
  options.threads = 1;
  options.backward = false;
  StrategyText asked = parse_strategy(options.strategy);
  for (const char* keys : {"keys", "backward-keys"}) {
    const bool has = asked.name == "auto" || find_strategy(asked.name).has(keys);
    if (has && !asked.has(keys)) asked.options.emplace_back(keys, "0");
  }
  options.strategy = asked.text();
  return workload_options(world, options, problem);
}

Row per_step_row(std::string name, const Report& report, double seconds_per_run, const std::string& against) {
  const double seconds = seconds_per_run / static_cast<double>(report.costs.steps);
  Row row = make_row("overhead", std::move(name), report);
  row.measured = concat(seconds_text(seconds), " a step, of ", counted(report.costs.steps, "step"));
  row.against = against;
  row.json["bench"]["against"] = against;
  row.json["bench"]["steps"] = report.costs.steps;
  row.json["bench"]["seconds_per_step"] = seconds;
  return row;
}

// All time of a run counts, so this is more than what the executor adds to a step. The ranks' agreement before the run
// and the little arithmetic are part of it. With several ranks so is the latency of their messages, and on a CUDA
// device the way there and back.
Row step_row(World& world, const Options& options) {
  std::optional<Inputs> inputs;
  together(world, [&] { inputs.emplace(tiny_problem(world, options), options); });
  const WorkloadOptions how = how_to_run(world, options, inputs->problem());
  Workload workload(world, *inputs, how);
  const Measured measured =
      measure(workload, options.repeat.value_or(kRepeat), options.warmup.value_or(kWarmup), false);
  const Report report = make_report(workload, *inputs, 1, measured, verify(workload, *inputs, options.verify));
  const bool on_cpu = how.attention.device.kind == DeviceKind::cpu;
  return per_step_row(concat("a step of next to no work, ", counted(world.world_size(), "rank")), report,
                      measured.forward.median(),
                      world.world_size() > 1 ? "nothing: messages are included"
                      : on_cpu               ? "goal 5 us"
                                             : "nothing: the device is included");
}

// The median of what a call takes of the host, while the device is behind: calls are made a few at a time.
double host_seconds(const Options& options, const std::function<void()>& call, const std::function<void()>& drain) {
  constexpr int kAtATime = 16;
  std::vector<double> seconds;
  const int warmup = options.warmup.value_or(kWarmup), repeat = options.repeat.value_or(kRepeat);
  for (int i = -warmup; i < repeat; ++i) {
    const auto began = std::chrono::steady_clock::now();
    call();
    if (i >= 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    if ((i + warmup) % kAtATime == kAtATime - 1) drain();
  }
  drain();
  return median(std::move(seconds));
}

// On a CUDA device, what a step takes of the host: issued as ever, forward and backward; and launched with all others
// as one CUDA graph, which gives the results that are verified.
std::vector<Row> host_rows(World& solo, const Options& options) {
  const Inputs inputs(tiny_problem(solo, options), options);
  WorkloadOptions how = how_to_run(solo, options, inputs.problem());
  if (how.attention.device.kind == DeviceKind::cpu) return {};
  how.plan.backward = true;
  DeviceStream stream(how.attention.device);
  how.attention.stream = stream.handle();
  Workload workload(solo, inputs, how);
  const auto issue = [&] {
    workload.begin(Pass::forward);
    workload.begin(Pass::backward);
  };
  const double issued = host_seconds(options, issue, [&] { workload.wait(); });
  const Report report_issued = make_report(workload, inputs, 1, {}, verify(workload, inputs, options.verify));
  workload.spoil_results();
  stream.record(issue);
  const double replayed = host_seconds(
      options, [&] { stream.replay(); }, [&] { stream.synchronize(); });
  const Report report_replayed = make_report(workload, inputs, 1, {}, verify(workload, inputs, options.verify));
  return {per_step_row("host time to issue a step", report_issued, issued, "goal 10 us"),
          per_step_row("host time of a step in a CUDA graph", report_replayed, replayed, "goal 1 us")};
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
  if (pairs != expected) row.complaint = concat(pairs, " pairs are planned, ", expected, " are admitted");
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
  on_first_rank(world, [&](World& solo) {
    rows.push_back(step_row(solo, options));
    for (Row& row : host_rows(solo, options)) rows.push_back(std::move(row));
  });
  if (world.world_size() > 1) rows.push_back(step_row(world, options));
  together(world, [&] {
    if (world.rank() == 0) rows.push_back(plan_row(options));
  });
  return rows;
}

}  // namespace orrery::launch
