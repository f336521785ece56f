// One rank's part of one attention, ready to run: its plan, its rows of every tensor, its workspace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "launch/inputs.hpp"
#include "orrery/attention.hpp"

namespace orrery::launch {

// 64-byte aligned memory. ErrorCode::resource, with the size and the purpose, when there is none.
class Memory {
 public:
  Memory() = default;
  Memory(std::size_t bytes, std::string_view purpose);

  std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  std::span<std::byte> span() const { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> bytes_;
  std::size_t size_ = 0;
};

struct WorkloadOptions {
  PlanOptions plan;
  AttentionOptions attention;
  bool prove = false;  // the plan, before it runs
};

class Workload {
 public:
  // Collective. Plans, fills the inputs with this rank's rows, and binds.
  Workload(World& world, const Inputs& inputs, const WorkloadOptions& options);

  World& world() { return world_; }
  const Plan& plan() const { return *plan_; }
  const Attention& attention() const { return *attention_; }
  const AttentionTensors& tensors() const { return tensors_; }
  const std::vector<Span>& positions() const { return positions_; }
  bool backward() const { return plan_->options.backward; }
  std::size_t tensor_bytes() const;

  // Collective. Runs the pass and returns this rank's seconds. An error under way is an AloneError.
  double run(Pass pass);

 private:
  TensorView make(std::int64_t heads, std::int64_t width, std::string_view purpose);
  void make_tensors();

  World& world_;
  std::optional<Plan> plan_;
  std::vector<Span> positions_;
  std::vector<Memory> memory_;
  AttentionTensors tensors_;
  Memory workspace_;
  std::optional<Attention> attention_;
};

// What is wrong with a plan is a bug of ours: throws the first finding.
void prove(const Plan& plan);

}  // namespace orrery::launch
