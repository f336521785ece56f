#include "launch/workload.hpp"

#include <chrono>
#include <cstdlib>

#include "launch/ranks.hpp"
#include "launch/text.hpp"
#include "orrery/check.hpp"

namespace orrery::launch {

Memory::Memory(std::size_t bytes, std::string_view purpose) : size_(bytes) {
  constexpr std::size_t kAlignment = 64;
  const std::size_t rounded = (bytes / kAlignment + 1) * kAlignment;
  bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
  if (bytes_ == nullptr) {
    fail(ErrorCode::resource, "out of memory: ", bytes_text(static_cast<double>(bytes)), " for ", purpose);
  }
}

void Memory::Free::operator()(std::byte* bytes) const noexcept {
  std::free(bytes);
}

Workload::Workload(World& world, const Inputs& inputs, const WorkloadOptions& options) : world_(world) {
  together(world, [&] {
    plan_.emplace(make_plan(inputs.problem(), world.topology(), options.plan));
    positions_ = plan_->layout.shard(world.rank());
    make_tensors();
    inputs.fill(tensors_, positions_);
  });
  if (options.prove) {
    together(world, [&] {
      if (world.rank() == 0) prove(*plan_);
    });
  }
  attention_.emplace(world, *plan_, options.attention);
  together(world, [&] {
    workspace_ = Memory(attention_->workspace_bytes(), "the workspace");
    attention_->bind(tensors_, workspace_.span());
  });
}

TensorView Workload::make(std::int64_t heads, std::int64_t width, std::string_view purpose) {
  const AttentionProblem& problem = plan_->problem;
  TensorView view = TensorView::dense(nullptr, problem.dtype, problem.batch, token_count(positions_), heads, width);
  memory_.emplace_back(static_cast<std::size_t>(view.elements()) * size_of(problem.dtype), purpose);
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
  memory_.emplace_back(static_cast<std::size_t>(problem.batch * heads * tokens) * sizeof(float), "the log-sum-exps");
  tensors_.lse = TensorView::rows(reinterpret_cast<float*>(memory_.back().data()), problem.batch, heads, tokens);
  if (!backward()) return;
  tensors_.grad_out = make(heads, width, "the output's gradient");
  tensors_.grad_query = make(heads, width, "the queries' gradient");
  tensors_.grad_key = make(kv_heads, width, "the keys' gradient");
  tensors_.grad_value = make(kv_heads, width, "the values' gradient");
}

std::size_t Workload::tensor_bytes() const {
  std::size_t bytes = 0;
  for (const Memory& memory : memory_) bytes += memory.size();
  return bytes;
}

double Workload::run(Pass pass) {
  const auto began = std::chrono::steady_clock::now();
  try {
    if (pass == Pass::forward) {
      attention_->forward();
    } else {
      attention_->backward();
    }
  } catch (const Error& error) {
    // Ranks refuse a run together, before its first transfer.
    if (error.code() == ErrorCode::invalid) throw;
    throw AloneError(error.code(), error.what());
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

void prove(const Plan& plan) {
  const std::vector<Finding> findings = check(plan);
  if (!findings.empty()) {
    fail(ErrorCode::bug, "the plan is wrong (", counted(static_cast<std::int64_t>(findings.size()), "finding"),
         "): ", to_text(findings.front()));
  }
}

}  // namespace orrery::launch
