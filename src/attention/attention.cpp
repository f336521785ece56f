#include "orrery/attention.hpp"

#include <optional>
#include <string>
#include <utility>

#include "attention/agreement.hpp"
#include "backend/host/host_backend.hpp"
#include "backend/trace/recorder.hpp"
#include "orrery/check.hpp"
#include "orrery/error.hpp"
#include "orrery/executor.hpp"

namespace orrery {
namespace {

#ifdef NDEBUG
constexpr bool kAlwaysProve = false;
#else
constexpr bool kAlwaysProve = true;
#endif

// The caller's tensor for each component of an input or output buffer.
host::BufferMemory callers(const Buffer& buffer, const AttentionTensors& t) {
  switch (buffer.kind) {
    case BufferKind::query:
      return {t.query};
    case BufferKind::key_value:
      return {t.key, t.value};
    case BufferKind::output:
      return {t.out, t.lse};
    case BufferKind::grad_output:
      return {t.grad_out};
    case BufferKind::grad_query:
      return {t.grad_query};
    case BufferKind::grad_key_value:
      return {t.grad_key, t.grad_value};
    default:
      fail(ErrorCode::bug, "no tensor of the caller's is a ", to_string(buffer.kind));
  }
}

void check_tensor(std::string_view name, const TensorView& t, const Buffer& buffer, const Component& c,
                  std::int64_t batch) {
  const auto shape = [](auto b, auto n, auto h, auto w) { return concat("[", b, ", ", n, ", ", h, ", ", w, "]"); };
  if (t.batch != batch || t.tokens != buffer.tokens || t.heads != buffer.heads || t.width != c.width) {
    refuse(name, " is ", shape(t.batch, t.tokens, t.heads, t.width), "; this rank's shard is ",
           shape(batch, buffer.tokens, buffer.heads, c.width));
  }
  if (t.dtype != c.dtype) refuse(name, " is ", to_string(t.dtype), "; the plan takes ", to_string(c.dtype));
  if (t.elements() > 0 && t.data == nullptr) refuse(name, " has no data");
  if (t.elements() > 0 && (t.batch_stride < 0 || t.token_stride < 0 || t.head_stride < 0)) {
    refuse(name, " has a negative stride");
  }
}

struct PassRunner {
  PassRunner(const AttentionProblem& problem, const RankProgram& rank_program)
      : program(rank_program), dependencies(program) {
    validate(program, problem);
  }

  RankProgram program;
  Dependencies dependencies;
  std::optional<host::HostBackend> backend;
  std::optional<trace::Recorder> recorder;
};

}  // namespace

struct Attention::Impl {
  World& world;
  Plan plan;
  AttentionOptions options;
  ThreadPool pool;
  std::uint64_t plan_hash;
  std::uint64_t calls = 0;
  std::optional<PassRunner> forward, backward;
  std::optional<host::Arena> arena;
  std::size_t scratch_bytes = 0;

  Impl(World& w, Plan p, const AttentionOptions& o)
      : world(w), plan(std::move(p)), options(o), pool(o.threads), plan_hash(hash(plan.text())) {
    agree_on_plan(world, plan.text());
    std::optional<Error> error;
    try {
      build();
    } catch (const Error& e) {
      error = e;
    }
    agree_no_error(world, error ? &*error : nullptr);
  }

  void build() {
    if (plan.topology.world_size != world.world_size()) {
      refuse("the plan is for ", plan.topology.world_size, " ranks, the world has ", world.world_size());
    }
    if (kAlwaysProve && world.rank() == 0) {
      const auto findings = check(plan);
      if (!findings.empty()) fail(ErrorCode::bug, "the plan is not proved: ", to_text(findings.front()));
    }
    std::vector<const RankProgram*> programs;
    const auto add = [&](std::optional<PassRunner>& runner, Pass pass) {
      runner.emplace(plan.problem, plan.program(world.rank(), pass));
      programs.push_back(&runner->program);
      scratch_bytes =
          std::max(scratch_bytes, host::HostBackend::scratch_bytes(plan.problem, runner->program, options.threads));
    };
    add(forward, Pass::forward);
    if (plan.options.backward) add(backward, Pass::backward);
    arena.emplace(plan.problem, programs);
  }

  std::size_t workspace_bytes() const { return arena->bytes() + scratch_bytes; }

  void bind(std::optional<PassRunner>& runner, std::size_t index, const AttentionTensors& tensors,
            std::span<std::byte> workspace) {
    std::vector<host::BufferMemory> memory;
    for (std::size_t i = 0; i < runner->program.buffers.size(); ++i) {
      const Buffer& buffer = runner->program.buffers[i];
      if (buffer.role == BufferRole::workspace || buffer.role == BufferRole::kept) {
        memory.push_back(arena->place(index, static_cast<int>(i), workspace.data()));
        continue;
      }
      memory.push_back(callers(buffer, tensors));
      const auto parts = components(buffer, plan.problem.head_dim);
      for (std::size_t c = 0; c < parts.size(); ++c) {
        check_tensor(parts[c].name, memory.back()[c], buffer, parts[c], plan.problem.batch);
      }
    }
    runner->recorder.reset();
    runner->backend.emplace(plan.problem, runner->program, runner->dependencies, std::move(memory),
                            workspace.subspan(arena->bytes()), world.link(), pool, world.timeout_seconds());
    runner->recorder.emplace(plan.problem, runner->program, *runner->backend);
  }

  void run(std::optional<PassRunner>& runner, Pass pass) {
    if (!runner) refuse("this plan has no ", to_string(pass), " pass");
    if (!runner->recorder) refuse("no tensors are bound");
    agree_on_call(world, plan_hash, calls++, pass);
    Executor(runner->program, *runner->recorder).run();
  }
};

Attention::Attention(World& world, Plan plan, const AttentionOptions& options)
    : impl_(std::make_unique<Impl>(world, std::move(plan), options)) {}
Attention::~Attention() = default;
Attention::Attention(Attention&&) noexcept = default;

const Plan& Attention::plan() const {
  return impl_->plan;
}

const RankProgram& Attention::program(Pass pass) const {
  const auto& runner = pass == Pass::forward ? impl_->forward : impl_->backward;
  if (!runner) refuse("this plan has no ", to_string(pass), " pass");
  return runner->program;
}

std::size_t Attention::workspace_bytes() const {
  return impl_->workspace_bytes();
}

void Attention::bind(const AttentionTensors& tensors, std::span<std::byte> workspace) {
  if (workspace.size() < workspace_bytes()) {
    refuse("the workspace has ", workspace.size(), " bytes; ", workspace_bytes(), " are needed");
  }
  if (reinterpret_cast<std::uintptr_t>(workspace.data()) % host::kAlignment != 0) {
    refuse("the workspace is not aligned to ", host::kAlignment, " bytes");
  }
  impl_->bind(impl_->forward, 0, tensors, workspace);
  if (impl_->backward) impl_->bind(impl_->backward, 1, tensors, workspace);
}

void Attention::forward() {
  impl_->run(impl_->forward, Pass::forward);
}
void Attention::backward() {
  impl_->run(impl_->backward, Pass::backward);
}

Timeline Attention::timeline(Pass pass) const {
  const auto& runner = pass == Pass::forward ? impl_->forward : impl_->backward;
  if (!runner || !runner->recorder) refuse("nothing has run");
  return runner->recorder->timeline(impl_->options.record_steps);
}

}  // namespace orrery
