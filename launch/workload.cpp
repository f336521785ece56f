#include "launch/workload.hpp"

#include <chrono>

#include "launch/devices.hpp"
#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/check.hpp"

namespace orrery::launch {
namespace {

// What fails in a run is this rank's alone, but ranks refuse a run together, before its first transfer.
template <typename Body>
void alone(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid) throw;
    throw AloneError(error.code(), error.what());
  }
}

}  // namespace

WorkloadOptions workload_options(World& world, const Options& options, const AttentionProblem& problem) {
  WorkloadOptions how;
  how.attention.threads = options.threads;
  const DeviceChoice choice = choose_device(world, options, problem);
  how.attention.device = choice.device;
  how.why_cpu = choice.why_cpu;
  how.attention.sm_margin = options.sm_margin;
  if (options.agree_always) how.attention.agree = *options.agree_always ? Agree::always : Agree::first;
  how.attention.portable_kernels = options.portable_kernels;
  how.plan = {.layout = options.layout, .strategy = options.strategy, .backward = options.backward};
  how.prove = options.prove;
  return how;
}

Workload::Workload(World& world, const Inputs& inputs, const WorkloadOptions& options)
    : world_(world), options_(options), device_(options.attention.device) {
  // Twice, for the first call makes the runtime take what it needs itself; together, so that no rank allocates before
  // all have looked.
  for (int i = 0; i < 2; ++i) together(world, [&] { device_bytes_before_ = memory_in_use(device_); });
  const Topology topology = device_topology(world, device_);
  together(world, [&] {
    plan_.emplace(make_plan(inputs.problem(), topology, options.plan, default_costs(device_.kind)));
    positions_ = plan_->layout.shard(world.rank());
    make_tensors();
    inputs.fill(tensors_, positions_, device_);
  });
  if (options.prove) {
    together(world, [&] {
      if (world.rank() == 0) prove(*plan_);
    });
  }
  attention_.emplace(world, *plan_, options.attention);
  together(world, [&] {
    workspace_ = DeviceMemory(device_, attention_->workspace_bytes(), "the workspace");
    attention_->bind(tensors_, {workspace_.data(), workspace_.size()});
  });
}

TensorView Workload::make(std::int64_t heads, std::int64_t width, std::string_view purpose) {
  const AttentionProblem& problem = plan_->problem;
  TensorView view = TensorView::dense(nullptr, problem.dtype, problem.batch, token_count(positions_), heads, width);
  memory_.emplace_back(device_, static_cast<std::size_t>(view.elements()) * size_of(problem.dtype), purpose);
  view.data = memory_.back().data();
  return view;
}

void Workload::make_tensors() {
  const AttentionProblem& problem = plan_->problem;
  const std::int64_t tokens = token_count(positions_);
  const int heads = problem.heads, kv_heads = problem.kv_heads, width = problem.head_dim;
  tensors_.query = make(heads, width, "the queries");
  tensors_.key = make(kv_heads, width, "the keys");
  tensors_.value = make(kv_heads, width, "the values");
  tensors_.out = make(heads, width, "the output");
  memory_.emplace_back(device_, static_cast<std::size_t>(problem.batch * heads * tokens) * sizeof(float),
                       "the log-sum-exps");
  tensors_.lse = TensorView::rows(reinterpret_cast<float*>(memory_.back().data()), problem.batch, heads, tokens);
  if (!backward()) return;
  tensors_.grad_out = make(heads, width, "the output's gradient");
  tensors_.grad_query = make(heads, width, "the queries' gradient");
  tensors_.grad_key = make(kv_heads, width, "the keys' gradient");
  tensors_.grad_value = make(kv_heads, width, "the values' gradient");
}

std::size_t Workload::tensor_bytes() const {
  std::size_t bytes = 0;
  for (const DeviceMemory& memory : memory_) bytes += memory.size();
  return bytes;
}

double Workload::run(Pass pass) {
  const auto began = std::chrono::steady_clock::now();
  begin(pass);
  wait();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

void Workload::begin(Pass pass) {
  alone([&] { pass == Pass::forward ? attention_->forward() : attention_->backward(); });
}

void Workload::wait() {
  alone([&] { attention_->wait(); });
}

void Workload::spoil_results() {
  for (const TensorView* result :
       {&tensors_.out, &tensors_.lse, &tensors_.grad_query, &tensors_.grad_key, &tensors_.grad_value}) {
    const std::vector<std::byte> nans(static_cast<std::size_t>(result->elements()) * size_of(result->dtype),
                                      std::byte{0xff});
    copy_bytes(result->data, nans.data(), nans.size());
  }
}

void prove(const Plan& plan) {
  const std::vector<Finding> findings = check(plan);
  if (!findings.empty()) {
    fail(ErrorCode::bug, "the plan is wrong (", counted(static_cast<std::int64_t>(findings.size()), "finding"),
         "): ", to_text(findings.front()));
  }
}

}  // namespace orrery::launch
