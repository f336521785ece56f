// What more ranks bring: all ranks against rank 0 alone on the same problem, alternating, so that both see the same
// moods of the machine. While rank 0 is alone the others wait.
#include "launch/bench.hpp"
#include "launch/devices.hpp"
#include "launch/ranks.hpp"
#include "launch/text.hpp"

namespace orrery::launch {
namespace {

struct Contest {
  std::vector<double> together_seconds, alone_seconds;  // of all passes
  Measured measured;                                    // of all ranks together
  Verification alone;
};

// `alone` is the workload of rank 0's own world, and null on the other ranks.
Contest alternate(Workload& workload, Workload* alone, int repeat, int warmup) {
  Contest contest;
  for (int run = -warmup; run < repeat; ++run) {
    const Measured all = measure(workload, 1, 0, false);
    double seconds = 0;
    if (alone != nullptr) {
      const Measured one = measure(*alone, 1, 0, false);
      seconds = one.forward.median() + one.backward.median();
    }
    workload.world().barrier();
    if (run < 0) continue;
    const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(contest.measured.forward.seconds, all.forward.seconds);
    append(contest.measured.backward.seconds, all.backward.seconds);
    contest.measured.exposed_comm_seconds = all.exposed_comm_seconds;
    contest.measured.peak_bytes = all.peak_bytes;
    contest.together_seconds.push_back(all.forward.median() + all.backward.median());
    contest.alone_seconds.push_back(seconds);
  }
  return contest;
}

}  // namespace

std::vector<Row> bench_ring(World& world, const Options& options) {
  std::optional<Inputs> inputs;
  together(world, [&] {
    if (world.world_size() < 2) refuse("--suite ring needs two ranks or more: mpirun -n 2, or --ranks 2");
    inputs.emplace(generated_problem(options, {.seq_len = 32768}), options);
  });
  const WorkloadOptions how = workload_options(world, options, inputs->problem());
  Workload workload(world, *inputs, how);

  const int repeat = options.repeat.value_or(3), warmup = options.warmup.value_or(0);
  Contest contest;
  if (world.rank() == 0) {
    try {
      run_in_process(1, {world.timeout_seconds()}, [&](World& solo) {
        WorkloadOptions single = how;
        single.plan.layout = single.plan.strategy = "auto";
        single.attention.sm_margin = 0;  // it has nobody to leave them to
        Workload alone(solo, *inputs, single);
        contest = alternate(workload, &alone, repeat, warmup);
        contest.alone = verify(alone, *inputs, options.verify);
      });
    } catch (const Error& error) {
      throw AloneError(error.code(), error.what());
    }
  } else {
    contest = alternate(workload, nullptr, repeat, warmup);
  }

  const double all = median(contest.together_seconds), one = median(contest.alone_seconds);
  const AttentionProblem& problem = workload.plan().problem;
  const double flops = problem.forward_flops() + (options.backward ? problem.backward_flops() : 0);
  contest.measured.flops_per_second = all > 0 ? flops / all : 0;
  const Report report =
      make_report(workload, *inputs, options.threads, contest.measured, verify(workload, *inputs, options.verify));
  Row row = make_row("ring", concat(workload.plan().strategy, " ", problem_text(problem)), report);
  row.wrong += contest.alone.wrong;
  if (row.complaint.empty() && !contest.alone.right()) row.complaint = "one rank: " + contest.alone.complaint();
  const bool on_cpu = how.attention.device.kind == DeviceKind::cpu;
  row.measured = concat(counted(world.world_size(), "rank"), " ", seconds_text(all), ", ", flops_text(flops / all));
  row.against =
      concat("1 rank ", seconds_text(one), ": ", fixed(one / all, 2), " times as fast, of ", world.world_size());
  row.json["bench"]["against"] = on_cpu ? "one rank of as many threads, same problem, alternating in this run"
                                        : "one rank on one device, same problem, alternating in this run";
  row.json["bench"]["one_rank_seconds"] = one;
  row.json["bench"]["speed_up"] = one / all;
  row.json["bench"]["ideal"] = world.world_size();
  return {row};
}

}  // namespace orrery::launch
