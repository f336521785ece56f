// One rank's part of one attention, ready to run: its plan, its rows of every tensor, its workspace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "launch/inputs.hpp"
#include "orrery/attention.hpp"
#include "orrery/device.hpp"

namespace orrery::launch {

struct WorkloadOptions {
  PlanOptions plan;
  AttentionOptions attention;
  bool prove = false;   // the plan, before it runs
  std::string why_cpu;  // and no CUDA device, where there is one
};

// Collective. What the options ask for, and the device that this rank computes on.
WorkloadOptions workload_options(World& world, const Options& options, const AttentionProblem& problem);

class Workload {
 public:
  // Collective. Plans, fills the inputs with this rank's rows, and binds.
  Workload(World& world, const Inputs& inputs, const WorkloadOptions& options);

  World& world() { return world_; }
  const Plan& plan() const { return *plan_; }
  const Attention& attention() const { return *attention_; }
  const AttentionTensors& tensors() const { return tensors_; }
  const std::vector<Span>& positions() const { return positions_; }
  Device device() const { return device_; }
  const WorkloadOptions& options() const { return options_; }
  bool backward() const { return plan_->options.backward; }
  std::size_t tensor_bytes() const;
  // Bytes of the CUDA device that have been taken since before this workload: its tensors and workspace, what the link
  // and the runtime keep, and whatever others took there meanwhile.
  std::int64_t device_bytes() const { return memory_in_use(device_) - device_bytes_before_; }

  // Collective. Runs the pass to its end and returns this rank's seconds. An error under way is an AloneError.
  double run(Pass pass);
  // The halves of it: on a CUDA device begin() puts the pass on the stream and returns.
  void begin(Pass pass);
  void wait();
  // Local. Makes NaNs of all that a run writes.
  void spoil_results();

 private:
  TensorView make(std::int64_t heads, std::int64_t width, std::string_view purpose);
  void make_tensors();

  World& world_;
  const WorkloadOptions options_;
  const Device device_;
  std::int64_t device_bytes_before_ = 0;
  std::optional<Plan> plan_;
  std::vector<Span> positions_;
  std::vector<DeviceMemory> memory_;
  AttentionTensors tensors_;
  DeviceMemory workspace_;
  std::optional<Attention> attention_;
};

// What is wrong with a plan is a bug of ours: throws the first finding.
void prove(const Plan& plan);

}  // namespace orrery::launch
