#include "launch/bench.hpp"

#include <algorithm>
#include <array>

#include "launch/devices.hpp"
#include "launch/outputs.hpp"
#include "launch/progress.hpp"
#include "launch/ranks.hpp"
#include "launch/seats.hpp"
#include "launch/text.hpp"
#include "launch/verbs.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

// The row of no suite: the problem that the options give.
Row bench_problem(World& world, const Options& options) {
  std::optional<Inputs> inputs;
  together(world, [&] { inputs.emplace(generated_problem(options), options); });
  const WorkloadOptions how = workload_options(world, options, inputs->problem());
  Workload workload(world, *inputs, how);
  note_crowded_cores(world, workload.device(), options.threads);
  const Measured measured = measure(workload, options.repeat.value_or(3), options.warmup.value_or(1), false);
  const Report report =
      make_report(workload, *inputs, options.threads, measured, verify(workload, *inputs, options.verify));
  Row row = make_row("problem", problem_text(inputs->problem()), report);
  row.measured = concat(seconds_text(measured.forward.median() + measured.backward.median()), ", ",
                        flops_text(measured.flops_per_second));
  return row;
}

std::string table(const std::vector<Row>& rows) {
  std::vector<std::array<std::string, 4>> lines = {{"row", "measured", "against", "#wrong"}};
  for (const Row& row : rows) lines.push_back({row.name, row.measured, row.against, concat(row.wrong)});
  std::array<std::size_t, 4> widths{};
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i)
      text += line[i] + std::string(widths[i] - line[i].size() + 2, ' ');
    text += line.back() + "\n";
  }
  return text;
}

std::vector<Row> measure_rows(World& world, const Options& options) {
  if (options.suite.empty()) return {bench_problem(world, options)};
  std::vector<Row> rows;
  const auto add = [&](std::vector<Row> more) { std::move(more.begin(), more.end(), std::back_inserter(rows)); };
  const bool all = options.suite == "all";
  if (all || options.suite == "kernel") add(bench_kernel(world, options));
  // All ranks against one has no meaning for one rank; --suite ring says so, and `all` leaves it out.
  if (options.suite == "ring" || (all && world.world_size() > 1)) add(bench_ring(world, options));
  if (all || options.suite == "overhead") add(bench_overhead(world, options));
  return rows;
}

}  // namespace

Row make_row(const std::string& suite, std::string name, const Report& report) {
  Row row;
  row.wrong = report.verification.wrong;
  row.complaint = report.verification.complaint();
  row.json = to_json(report);
  row.json["bench"] = {{"suite", suite}, {"row", name}};
  row.name = std::move(name);
  return row;
}

void on_first_rank(World& world, const std::function<void(World&)>& body) {
  together(world, [&] {
    if (world.rank() == 0) run_in_process(1, {world.timeout_seconds()}, body);
  });
}

int bench(World& world, const Options& options) {
  const bool first = world.rank() == 0;
  std::optional<Outputs> outputs;
  together(world, [&] {
    if (first) outputs.emplace(options);
  });
  const std::vector<Row> rows = [&] {
    const Progress progress(first, "measuring");
    return measure_rows(world, options);
  }();
  together(world, [&] {
    if (!first) return;
    if (outputs->json()) {
      nlohmann::ordered_json list = nlohmann::ordered_json::array();
      for (const Row& row : rows) list.push_back(row.json);
      outputs->json()->write(dump({{"version", kVersion}, {"rows", list}}));
    }
    if (outputs->text()) print(table(rows));
  });
  together(world, [&] {
    if (!first) return;
    for (const Row& row : rows) {
      if (!row.complaint.empty())
        fail(ErrorCode::verification, "verification failed in '", row.name, "': ", row.complaint);
    }
  });
  return 0;
}

}  // namespace orrery::launch
