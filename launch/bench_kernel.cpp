// How near the kernels come to what this core can do: one rank, against the fused-multiply-add peak that is measured
// right before and right after, on the same thread. The higher of the two counts, so that a slow moment of the machine
// flatters no row. On a CUDA device the rates stand for themselves: what it could do at most is not measured.
#include <algorithm>

#include "launch/bench.hpp"
#include "launch/devices.hpp"
#include "launch/text.hpp"
#include "orrery/machine.hpp"

namespace orrery::launch {
namespace {

void against_peak(Row& row, double peak, double forward, double backward) {
  row.against = concat("peak ", flops_text(peak), ": forward ", fixed(100 * forward / peak, 0), " %, backward ",
                       fixed(100 * backward / peak, 0), " %");
  row.json["bench"]["against"] = "fused-multiply-add peak of the threads used, measured in this run";
  row.json["bench"]["peak_flops"] = peak;
  row.json["bench"]["forward_of_peak"] = forward / peak;
  row.json["bench"]["backward_of_peak"] = backward / peak;
}

Row kernel_row(World& solo, const Options& options, const AttentionProblem& problem, Device device) {
  const bool on_cpu = device.kind == DeviceKind::cpu;
  const Inputs inputs(problem, options);
  WorkloadOptions how;
  how.plan.backward = true;
  how.attention.threads = options.threads;
  how.attention.device = device;
  how.attention.sm_margin = options.sm_margin;
  how.attention.portable_kernels = options.portable_kernels;
  Workload workload(solo, inputs, how);

  const double peak_before = on_cpu ? measured_fma_peak_flops() : 0;
  const Measured measured = measure(workload, options.repeat.value_or(5), options.warmup.value_or(1), false);
  const double forward = problem.forward_flops() / measured.forward.median();
  const double backward = problem.backward_flops() / measured.backward.median();
  const double peak = on_cpu ? std::max(peak_before, measured_fma_peak_flops()) * options.threads : 0;

  const Report report =
      make_report(workload, inputs, options.threads, measured, verify(workload, inputs, options.verify));
  Row row = make_row(
      "kernel", concat("kernel ", problem.mask.text(), " d", problem.head_dim, " ", to_string(problem.dtype)), report);
  row.measured = concat("forward ", flops_text(forward), ", backward ", flops_text(backward));
  row.json["bench"]["forward_flops"] = forward;
  row.json["bench"]["backward_flops"] = backward;
  if (on_cpu) {
    against_peak(row, peak, forward, backward);
  } else {
    row.against = "nothing, on " + device_text(report);
    row.json["bench"]["against"] = "nothing";
  }
  return row;
}

// What is large enough to keep the processor busy.
AttentionProblem kernel_problem(const Options& options, const std::string& mask, int head_dim, bool on_cpu) {
  Options sized = options;
  sized.head_dim = head_dim;
  sized.mask = mask;
  if (on_cpu) return generated_problem(sized, {.seq_len = 8192, .heads = 2});
  if (!sized.dtype) sized.dtype = Dtype::bf16;
  return generated_problem(sized, {.seq_len = 16384, .heads = 16});
}

}  // namespace

std::vector<Row> bench_kernel(World& world, const Options& options) {
  std::vector<Row> rows;
  const std::vector<int> head_dims = options.head_dim ? std::vector<int>{*options.head_dim} : std::vector<int>{64, 128};
  const std::vector<std::string> masks =
      options.mask ? std::vector<std::string>{*options.mask} : std::vector<std::string>{"causal", "full"};
  for (const int head_dim : head_dims) {
    for (const std::string& mask : masks) {
      on_first_rank(world, [&](World& solo) {
        const Device device = choose_device(solo, options, kernel_problem(options, mask, head_dim, false)).device;
        const bool on_cpu = device.kind == DeviceKind::cpu;
        rows.push_back(kernel_row(solo, options, kernel_problem(options, mask, head_dim, on_cpu), device));
      });
    }
  }
  return rows;
}

}  // namespace orrery::launch
