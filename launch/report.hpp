// What a run did, for people and for scripts. plan.predicted_seconds of the JSON is null until plans are priced, and so
// is measured.backward_seconds without a backward pass. plan.kernels is which attention kernels rank 0's CUDA device
// ran, {"forward": "hopper", "backward": "portable"} or, for that dtype, "fp32"; null on a CPU, and backward without
// that pass. plan.why_portable says of each of them why it is portable where the device has faster ones, and
// plan.why_cpu why a CPU computes where there is a CUDA device; null otherwise. measured.turns says what several ranks
// take turns on, which exposed_comm_seconds then includes; null where each has its own.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "launch/measure.hpp"
#include "orrery/verify.hpp"

namespace orrery::launch {

// Everything that rank 0 knows at the end of a run.
struct Report {
  Plan plan;
  std::string inputs;  // where they came from
  std::uint64_t seed = 0;
  int threads = 1;
  std::string link;
  Device device;                                    // rank 0's
  std::string why_cpu;                              // where there is a CUDA device
  int sm_margin = 0;                                // of rank 0, on a CUDA device
  std::string forward_kernels, backward_kernels;    // of rank 0, on a CUDA device; empty for no backward pass
  std::string forward_portable, backward_portable;  // why they are, where there are faster ones
  std::string turns;                                // what ranks take turns on
  PlanCosts costs;
  Measured measured;
  Verification verification;
};

// Collective. Of the results that lie in the workload's tensors, against float64 or, of counting inputs, the closed
// form.
Verification verify(Workload& workload, const Inputs& inputs, VerifyMode mode);

// Collective, for the costs of all ranks.
Report make_report(Workload& workload, const Inputs& inputs, int threads, const Measured& measured,
                   const Verification& verification);

std::string to_text(const Report& report);
nlohmann::ordered_json to_json(const Report& report);

nlohmann::ordered_json problem_json(const AttentionProblem& problem, bool backward, std::uint64_t seed);
nlohmann::ordered_json machine_json(int threads, const std::string& link, Device device = {});
// With a line feed; text that is no UTF-8 (file names may be anything) is repaired.
std::string dump(const nlohmann::ordered_json& json);

std::string problem_text(const AttentionProblem& problem);
// Its strategy, with the options whose values are not the standard ones: "ring", "ring:keys=65536".
std::string strategy_of(const Plan& plan);
// On what a rank computes: threads, or a CUDA device and which of its attention kernels.
std::string device_text(const Report& report);
// ErrorCode::verification, with the worst row and the errors beyond their limits, when a result is wrong.
void refuse_wrong(const Verification& verification);

}  // namespace orrery::launch
