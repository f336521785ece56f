#include <nlohmann/json.hpp>

#include "launch/devices.hpp"
#include "launch/report.hpp"
#include "orrery/machine.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

using Json = nlohmann::ordered_json;

Json times_json(const PassTimes& times) {
  if (times.seconds.empty()) return nullptr;
  return {{"median", times.median()}, {"p99", times.p99()}, {"runs", times.seconds.size()}};
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

// Null on a CPU, and backward without that pass.
Json kernels_json(const Report& report) {
  if (report.device.kind == DeviceKind::cpu) return nullptr;
  const Json backward = report.backward_kernels.empty() ? Json() : Json(report.backward_kernels);
  return {{"forward", report.forward_kernels}, {"backward", backward}};
}

Json verification_json(const Verification& v) {
  Json json = {{"mode", to_string(v.mode)}, {"rows", v.rows}, {"keys", v.keys}, {"nonfinite", v.nonfinite}}, limits;
  for (const auto& [name, error] : kAggregateErrors) {
    json[std::string(name)] = v.*error;
    limits[std::string(name)] = v.limits.*error;
  }
  json["limits"] = limits;
  json["exceeded"] = v.exceeded();
  json["wrong"] = v.wrong;
  json["right"] = v.right();
  return json;
}

Json options_json(const StrategyOptions& options) {
  Json json = Json::object();
  for (const StrategyOption& option : options.known()) {
    const std::string name(option.name);
    switch (option.kind) {
      case OptionKind::number:
        json[name] = options.number(name);
        break;
      case OptionKind::flag:
        json[name] = options.flag(name);
        break;
      case OptionKind::word:
        json[name] = options.word(name);
        break;
    }
  }
  return json;
}

// 0 where the strategy has no such option.
std::int64_t keys_of(const Plan& plan, std::string_view option) {
  return find_strategy(plan.strategy).has(option) ? plan.strategy_options.number(option) : 0;
}

}  // namespace

Json problem_json(const AttentionProblem& problem, bool backward, std::uint64_t seed) {
  return {{"seq_len", problem.seq_len},
          {"batch", problem.batch},
          {"heads", problem.heads},
          {"kv_heads", problem.kv_heads},
          {"head_dim", problem.head_dim},
          {"dtype", to_string(problem.dtype)},
          {"mask", problem.mask.text()},
          {"scale", problem.effective_scale()},
          {"seed", seed},
          {"backward", backward}};
}

Json machine_json(int threads, const std::string& link, Device device) {
  const Machine machine = describe_machine();
  Json capability;  // null on a CPU
  if (device.kind == DeviceKind::cuda) {
    capability = capability_text(machine.cuda_devices.at(static_cast<std::size_t>(device.index)).compute_capability);
  }
  return {{"compiler", machine.compiler},
          {"build_type", machine.build_type},
          {"cpu", machine.cpu},
          {"cores", machine.cores},
          {"simd", machine.simd},
          {"mpi", machine.mpi},
          {"link", link},
          {"threads", threads},
          {"device", device_name(device)},
          {"compute_capability", capability},
          {"cuda_devices", machine.cuda_devices.size()},
          {"cuda_runtime", machine.cuda_runtime},
          {"cuda_driver", machine.cuda_driver}};
}

Json to_json(const Report& report) {
  return {
      {"version", kVersion},
      {"problem", problem_json(report.plan.problem, report.plan.options.backward, report.seed)},
      {"plan",
       {{"strategy", report.plan.strategy},
        {"layout", report.plan.layout.text()},
        {"reason", report.plan.reason},
        {"world_size", report.plan.topology.world_size},
        {"device", to_string(report.device.kind)},
        {"why_cpu", text_or_null(report.why_cpu)},
        {"options", options_json(report.plan.strategy_options)},
        {"keys_per_step", keys_of(report.plan, "keys")},
        {"backward_keys_per_step", keys_of(report.plan, "backward-keys")},
        {"link_bytes_per_second", report.plan.topology.inside_node.bytes_per_second},
        {"sm_margin", report.sm_margin},
        {"kernels", kernels_json(report)},
        {"why_portable",
         {{"forward", text_or_null(report.forward_portable)}, {"backward", text_or_null(report.backward_portable)}}},
        {"steps", report.costs.steps},
        {"bytes_sent", report.costs.bytes_sent},
        {"workspace_bytes", report.costs.workspace_bytes},
        {"predicted_seconds", nullptr}}},
      {"measured",
       {{"forward_seconds", times_json(report.measured.forward)},
        {"backward_seconds", times_json(report.measured.backward)},
        {"tflops", report.measured.flops_per_second / 1e12},
        {"exposed_comm_seconds", report.measured.exposed_comm_seconds},
        {"turns", text_or_null(report.turns)},
        {"peak_bytes", report.measured.peak_bytes}}},
      {"verification", verification_json(report.verification)},
      {"machine", machine_json(report.threads, report.link, report.device)}};
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace orrery::launch
