// How near the kernels come to what this core can do: one rank, against the fused-multiply-add peak that is measured
// right before and right after, on the same thread. The higher of the two counts, so that a slow moment of the machine
// flatters no row.
#include <algorithm>

#include "launch/bench.hpp"
#include "launch/text.hpp"
#include "orrery/machine.hpp"

namespace orrery::launch {
namespace {

Row kernel_row(World& solo, const Options& options, const AttentionProblem& problem) {
  const Inputs inputs(problem, options.seed);
  WorkloadOptions how;
  how.plan.backward = true;
  how.attention.threads = options.threads;
  Workload workload(solo, inputs, how);

  const double peak_before = measured_fma_peak_flops();
  const Measured measured = measure(workload, options.repeat.value_or(5), options.warmup.value_or(1), true);
  const double peak = std::max(peak_before, measured_fma_peak_flops()) * options.threads;
  const double forward = problem.forward_flops() / measured.forward.median();
  const double backward = problem.backward_flops() / measured.backward.median();

  const Report report = make_report(workload, inputs, options.threads, measured, options.verify);
  Row row = make_row(
      "kernel", concat("kernel ", problem.mask.text(), " d", problem.head_dim, " ", to_string(problem.dtype)), report);
  row.measured = concat("forward ", flops_text(forward), ", backward ", flops_text(backward));
  row.against = concat("peak ", flops_text(peak), ": forward ", fixed(100 * forward / peak, 0), " %, backward ",
                       fixed(100 * backward / peak, 0), " %");
  row.json["bench"]["against"] = "fused-multiply-add peak of the threads used, measured in this run";
  row.json["bench"]["peak_flops"] = peak;
  row.json["bench"]["forward_of_peak"] = forward / peak;
  row.json["bench"]["backward_of_peak"] = backward / peak;
  return row;
}

}  // namespace

std::vector<Row> bench_kernel(World& world, const Options& options) {
  std::vector<Row> rows;
  const std::vector<int> head_dims = options.head_dim ? std::vector<int>{*options.head_dim} : std::vector<int>{64, 128};
  const std::vector<std::string> masks =
      options.mask ? std::vector<std::string>{*options.mask} : std::vector<std::string>{"causal", "full"};
  for (const int head_dim : head_dims) {
    for (const std::string& mask : masks) {
      Options sized = options;
      sized.head_dim = head_dim;
      sized.mask = mask;
      on_first_rank(world, [&](World& solo) {
        rows.push_back(kernel_row(solo, options, generated_problem(sized, {.seq_len = 8192, .heads = 2})));
      });
    }
  }
  return rows;
}

}  // namespace orrery::launch
