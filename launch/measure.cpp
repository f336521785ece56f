#include "launch/measure.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "launch/progress.hpp"
#include "launch/text.hpp"
#include "orrery/schedule.hpp"

namespace orrery::launch {
double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double PassTimes::median() const {
  return launch::median(seconds);
}

double PassTimes::p99() const {
  if (seconds.empty()) return 0;
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(sorted.size())));
  return sorted[rank - 1];
}

std::vector<double> slowest(World& world, const std::vector<double>& mine) {
  const auto all = world.all_gather(std::as_bytes(std::span(mine)));
  std::vector<double> most = mine;
  std::vector<double> theirs(mine.size());
  for (const auto& bytes : all) {
    ORRERY_CHECK(bytes.size() == theirs.size() * sizeof(double), "ranks measured different numbers of values");
    if (!bytes.empty()) std::memcpy(theirs.data(), bytes.data(), bytes.size());
    for (std::size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], theirs[i]);
  }
  return most;
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

Measured measure(Workload& workload, int repeat, int warmup, bool show_progress) {
  World& world = workload.world();
  const bool backward = workload.backward();
  std::vector<double> forward_seconds, backward_seconds, exposed;
  {
    Progress progress(show_progress && world.rank() == 0, "running");
    double last = 0;
    for (int run = -warmup; run < repeat; ++run) {
      progress.now(concat(run < 0 ? "warming up" : concat("run ", run + 1, " of ", repeat),
                          last > 0 ? ", last " + seconds_text(last) : std::string()));
      world.barrier();
      const double forward = workload.run(Pass::forward);
      double back = 0;
      if (backward) {
        world.barrier();
        back = workload.run(Pass::backward);
      }
      last = forward + back;
      if (run < 0) continue;
      forward_seconds.push_back(forward);
      if (backward) backward_seconds.push_back(back);
      exposed.push_back(workload.attention().timeline(Pass::forward).exposed_comm_seconds +
                        (backward ? workload.attention().timeline(Pass::backward).exposed_comm_seconds : 0));
    }
  }
  Measured measured;
  measured.forward.seconds = slowest(world, forward_seconds);
  measured.backward.seconds = slowest(world, backward_seconds);
  measured.exposed_comm_seconds = median(slowest(world, exposed));
  // A run allocates nothing, so what is in use on a device now is what was in use at most.
  const bool on_cpu = workload.device().kind == DeviceKind::cpu;
  const std::int64_t peak_bytes = on_cpu ? peak_resident_bytes() : workload.device_bytes();
  measured.peak_bytes = static_cast<std::int64_t>(slowest(world, {static_cast<double>(peak_bytes)}).front());
  const AttentionProblem& problem = workload.plan().problem;
  const double flops = problem.forward_flops() + (backward ? problem.backward_flops() : 0);
  const double seconds = measured.forward.median() + measured.backward.median();
  measured.flops_per_second = seconds > 0 ? flops / seconds : 0;
  return measured;
}

PlanCosts gather_costs(Workload& workload) {
  World& world = workload.world();
  const Attention& attention = workload.attention();
  ProgramCost mine = cost(attention.program(Pass::forward), workload.plan().problem);
  if (workload.backward()) {
    const ProgramCost back = cost(attention.program(Pass::backward), workload.plan().problem);
    mine.bytes_sent += back.bytes_sent;
    mine.steps += back.steps;
  }
  PlanCosts costs;
  for (const double bytes : all_gather(world, static_cast<double>(mine.bytes_sent))) {
    costs.bytes_sent.push_back(static_cast<std::int64_t>(bytes));
  }
  const std::vector<double> most =
      slowest(world, {static_cast<double>(mine.steps), static_cast<double>(attention.workspace_bytes()),
                      static_cast<double>(workload.tensor_bytes())});
  costs.steps = static_cast<std::int64_t>(most[0]);
  costs.workspace_bytes = static_cast<std::int64_t>(most[1]);
  costs.tensor_bytes = static_cast<std::int64_t>(most[2]);
  return costs;
}

}  // namespace orrery::launch
