#include "launch/report.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "launch/devices.hpp"
#include "launch/seats.hpp"
#include "launch/text.hpp"
#include "orrery/machine.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

std::string line(std::string_view label, const std::string& text) {
  std::string padded(label);
  padded.resize(14, ' ');
  return padded + text + "\n";
}

std::string pass_text(const PassTimes& times, double flops) {
  const double median = times.median();
  std::string text = seconds_text(median);
  if (times.seconds.size() > 1)
    text += concat("  (p99 ", seconds_text(times.p99()), ", ", times.seconds.size(), " runs)");
  if (median > 0) text += "  " + flops_text(flops / median);
  return text;
}

std::string sent_text(const PlanCosts& costs) {
  const auto [least, most] = std::minmax_element(costs.bytes_sent.begin(), costs.bytes_sent.end());
  if (*most == 0) return "nothing";
  const auto total = std::accumulate(costs.bytes_sent.begin(), costs.bytes_sent.end(), std::int64_t{0});
  const std::string each =
      *least == *most ? bytes_text(static_cast<double>(*most))
                      : concat(bytes_text(static_cast<double>(*least)), " to ", bytes_text(static_cast<double>(*most)));
  return concat(each, " by a rank, ", bytes_text(static_cast<double>(total)), " in all, in ",
                counted(costs.steps, "step"));
}

// A rank that waits cannot tell whether for a transfer or for its turn, of which the other end of the transfer may be
// in need.
std::string exposed_text(const Report& report) {
  const Measured& measured = report.measured;
  if (measured.exposed_comm_seconds == 0) return "nothing: computation hid all communication";
  const double whole = measured.forward.median() + measured.backward.median();
  std::string text = seconds_text(measured.exposed_comm_seconds);
  text += report.turns.empty() ? " of communication that computation did not hide"
                               : " in which a rank waited for others, for their turns too";
  if (whole > 0) text += concat(" (", fixed(100 * measured.exposed_comm_seconds / whole, 1), " %)");
  if (!report.turns.empty()) text += ": " + report.turns;
  return text;
}

// Why these kernels are the portable ones where the device has faster ones; or nothing.
std::string why_portable(const Report& report, const std::string& kernels, bool backward, bool asked) {
  const CudaDeviceInfo device = cuda_devices().at(static_cast<std::size_t>(report.device.index));
  if (kernels != "portable" || cuda_kernels(device) == kernels) return {};
  if (asked) return "asked for";
  const AttentionProblem& problem = report.plan.problem;
  return portable_kernels_reason(device, backward, problem.head_dim, problem.effective_scale());
}

std::string verification_text(const Verification& v, bool backward) {
  if (v.mode == VerifyMode::none) return "no, as asked";
  std::string text = counted(v.rows, "row");
  if (backward) text += " and " + counted(v.keys, "key");
  text +=
      concat(" against float64: out ", scientific(v.out_rel_l2), " rel. L2, lse ", scientific(v.lse_max_abs), " abs.");
  if (backward) {
    text +=
        concat("; dq ", scientific(v.dq_rel_l2), ", dk ", scientific(v.dk_rel_l2), ", dv ", scientific(v.dv_rel_l2));
  }
  if (v.nonfinite > 0) text += concat("; ", v.nonfinite, " not compared, which a NaN or an infinity reaches");
  text += v.wrong == 0 ? "; none wrong" : concat("; ", v.wrong, " WRONG");
  for (const auto& [name, error] : kAggregateErrors) {
    if (!(v.*error <= v.limits.*error))
      text += concat("; ", name, " ", scientific(v.*error), " IS BEYOND ", scientific(v.limits.*error));
  }
  return text;
}

}  // namespace

std::string problem_text(const AttentionProblem& problem) {
  std::string mask = problem.mask.text();
  constexpr std::size_t kLongest = 60;  // documents can be many
  if (mask.size() > kLongest) mask = mask.substr(0, kLongest) + "...";
  return concat(mask, ", ", counted(problem.seq_len, "token"), ", ", counted(problem.heads, "head"),
                problem.kv_heads == problem.heads ? "" : concat(" over ", problem.kv_heads, " KV"), ", head_dim ",
                problem.head_dim, ", ", to_string(problem.dtype),
                problem.batch == 1 ? "" : concat(", batch ", problem.batch));
}

std::string device_text(const Report& report) {
  if (report.device.kind == DeviceKind::cpu) return counted(report.threads, "thread") + " each";
  const std::string &forward = report.forward_kernels, &backward = report.backward_kernels;
  const bool differ = !backward.empty() && backward != forward;
  return concat(device_name(report.device), ", ",
                differ ? concat(forward, " kernels forward, ", backward, " backward") : concat(forward, " kernels"));
}

void refuse_wrong(const Verification& verification) {
  if (!verification.right()) fail(ErrorCode::verification, "verification failed: ", verification.complaint());
}

Verification verify(Workload& workload, const Inputs& inputs, VerifyMode mode) {
  return verify(workload.world(), workload.plan(), workload.tensors(), workload.backward(),
                {mode, inputs.seed(), workload.device(), inputs.recipe()});
}

Report make_report(Workload& workload, const Inputs& inputs, int threads, const Measured& measured,
                   const Verification& verification) {
  World& world = workload.world();
  const Attention& attention = workload.attention();
  const AttentionOptions& options = workload.options().attention;
  Report report{.plan = workload.plan(),
                .inputs = inputs.describe(),
                .seed = inputs.seed(),
                .threads = threads,
                .link = std::string(attention.link_name()),
                .device = workload.device(),
                .why_cpu = workload.options().why_cpu,
                .forward_kernels = std::string(attention.kernels(Pass::forward)),
                .backward_kernels = std::string(attention.kernels(Pass::backward)),
                .forward_portable = {},
                .backward_portable = {},
                .turns = {},
                .costs = gather_costs(workload),
                .measured = measured,
                .verification = verification};
  const std::vector<Seat> seats = seats_of(world, report.device, threads);
  if (world.rank() == 0) report.turns = turns_text(seats);
  if (report.device.kind == DeviceKind::cuda) {
    report.sm_margin = options.sm_margin;
    report.forward_portable = why_portable(report, report.forward_kernels, false, options.portable_kernels);
    report.backward_portable = why_portable(report, report.backward_kernels, true, options.portable_kernels);
  }
  return report;
}

std::string strategy_of(const Plan& plan) {
  std::string text = plan.strategy;
  for (const StrategyOption& option : plan.strategy_options.known()) {
    const std::string_view value = plan.strategy_options.text_of(option.name);
    if (value != option.standard) text += concat(text == plan.strategy ? ":" : ",", option.name, "=", value);
  }
  return text;
}

std::string to_text(const Report& report) {
  const AttentionProblem& problem = report.plan.problem;
  const Measured& measured = report.measured;
  const bool backward = report.plan.options.backward;
  std::string text = concat("orrery ", kVersion, "\n");
  text += line("problem", problem_text(problem));
  text += line("inputs", report.inputs);
  const bool on_cpu = report.device.kind == DeviceKind::cpu;
  text += line("plan", concat(strategy_of(report.plan), " over ", report.plan.layout.text(), " on ",
                              counted(report.plan.topology.world_size, "rank"), " (", report.link, ", ",
                              device_text(report), ")"));
  text += line("why", report.plan.reason);
  if (!report.why_cpu.empty()) text += line("", "a CPU, though there is a CUDA device: " + report.why_cpu);
  for (const auto& [pass, why] :
       {std::pair("forward", &report.forward_portable), {"backward", &report.backward_portable}}) {
    if (!why->empty()) text += line("", concat("portable kernels ", pass, ": ", *why));
  }
  text += line("memory", concat(bytes_text(static_cast<double>(report.costs.tensor_bytes)), " of tensors and ",
                                bytes_text(static_cast<double>(report.costs.workspace_bytes)),
                                " of workspace a rank; the ", on_cpu ? "process peaked at " : "device gave ",
                                bytes_text(static_cast<double>(measured.peak_bytes))));
  text += line("sent", sent_text(report.costs));
  text += line("forward", pass_text(measured.forward, problem.forward_flops()));
  if (backward) text += line("backward", pass_text(measured.backward, problem.backward_flops()));
  if (report.plan.topology.world_size > 1) text += line("exposed", exposed_text(report));
  text += line("verified", verification_text(report.verification, backward));
  return text;
}

}  // namespace orrery::launch
