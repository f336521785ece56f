#include "orrery/attention.hpp"

#include <optional>
#include <string>
#include <utility>

#include "attention/agreement.hpp"
#include "backend/cuda/cuda_backend.hpp"
#include "backend/host/host_backend.hpp"
#include "backend/trace/recorder.hpp"
#include "link/stream_link.hpp"
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

constexpr std::size_t kDeviceAlignment = 256;  // what every allocator of device memory keeps

// The caller's tensor for each component of an input or output buffer.
BufferMemory callers(const Buffer& buffer, const AttentionTensors& t) {
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
  PassRunner(const AttentionProblem& problem, RankProgram rank_program)
      : program(std::move(rank_program)), dependencies(program) {
    validate(program, problem);
  }

  RankProgram program;
  Dependencies dependencies;
  std::unique_ptr<Backend> backend;
  cuda::CudaBackend* on_device = nullptr;  // the backend, when that is what it is
  std::optional<trace::Recorder> recorder;
  bool ran = false;
  std::size_t table_bytes = 0;  // on CUDA
  std::string_view kernels;     // on CUDA
};

}  // namespace

struct Attention::Impl {
  World& world;
  Plan plan;
  AttentionOptions options;
  ThreadPool pool;
  std::uint64_t plan_hash;
  std::uint64_t calls = 0;
  cuda::OwnStream own_stream;  // on CUDA, without one of the caller's
  std::optional<PassRunner> forward, backward;
  StreamLink* link = nullptr;  // on CUDA
  std::optional<Arena> arena;
  std::size_t table_bytes = 0, scratch_bytes = 0;  // of all passes, and of the one that needs most

  Impl(World& w, Plan p, const AttentionOptions& o)
      : world(w), plan(std::move(p)), options(o), pool(o.threads), plan_hash(hash(plan.text())) {
    agree_on_plan(world, concat(plan.text(), " device=", to_string(options.device.kind)));
    // Opening a link is collective, so nobody stays away who has something to object: that comes after.
    if (on_cuda() && has_cuda_backend()) link = &world.stream_link(options.device);
    std::optional<Error> error;
    try {
      build();
    } catch (const Error& e) {
      error = e;
    }
    agree_no_error(world, error ? &*error : nullptr);
  }

  bool on_cuda() const { return options.device.kind == DeviceKind::cuda; }

  void build() {
    if (on_cuda()) {
      const int device = options.device.index;
      std::string reason = cuda::refuses(plan.problem);
      if (reason.empty()) reason = cuda::refuses_margin(options.sm_margin, device);
      if (reason.empty() && plan.options.backward) {
        reason = cuda::refuses_backward(plan.problem, options.portable_kernels, device);
      }
      if (!reason.empty()) refuse(reason);
      if (!options.stream) own_stream = cuda::open_stream(options.device.index);
    }
    if (plan.topology.world_size != world.world_size()) {
      refuse("the plan is for ", plan.topology.world_size, " ranks, the world has ", world.world_size());
    }
    if (kAlwaysProve && world.rank() == 0) {
      const auto findings = check(plan, {.planned = !on_cuda(), .fused = on_cuda()});
      if (!findings.empty()) fail(ErrorCode::bug, "the plan is not proved: ", to_text(findings.front()));
    }
    std::vector<const RankProgram*> programs;
    const auto add = [&](std::optional<PassRunner>& runner, Pass pass) {
      RankProgram program = plan.program(world.rank(), pass);
      if (on_cuda()) program = fuse(program);
      runner.emplace(plan.problem, std::move(program));
      programs.push_back(&runner->program);
      cuda::ScratchBytes bytes;
      if (on_cuda()) {
        bytes = cuda::scratch_bytes(plan.problem, runner->program, *link);
        runner->kernels = cuda::kernels_of(plan.problem, pass, options.portable_kernels, options.device.index);
      } else {
        bytes.run = host::HostBackend::scratch_bytes(plan.problem, runner->program, options.threads);
      }
      runner->table_bytes = bytes.tables;
      table_bytes += bytes.tables;
      scratch_bytes = std::max(scratch_bytes, bytes.run);
    };
    add(forward, Pass::forward);
    if (plan.options.backward) add(backward, Pass::backward);
    arena.emplace(plan.problem, programs);
  }

  std::size_t alignment() const { return on_cuda() ? kDeviceAlignment : kAlignment; }
  // Aligned behind the arena lie the tables of each pass, then the scratch that they share.
  std::size_t tables_offset() const { return (arena->bytes() + alignment() - 1) / alignment() * alignment(); }
  std::size_t scratch_offset() const { return tables_offset() + table_bytes; }
  std::size_t workspace_bytes() const { return scratch_offset() + scratch_bytes; }

  void bind(std::optional<PassRunner>& runner, std::size_t index, const AttentionTensors& tensors,
            std::span<std::byte> workspace) {
    std::vector<BufferMemory> memory;
    for (std::size_t i = 0; i < runner->program.buffers.size(); ++i) {
      const Buffer& buffer = runner->program.buffers[i];
      if (buffer.role == BufferRole::workspace || buffer.role == BufferRole::kept) {
        memory.push_back(arena->place(index, static_cast<int>(i), workspace.data()));
        continue;
      }
      memory.push_back(callers(buffer, tensors));
      const auto parts = components(buffer, plan.problem.head_dim);
      for (std::size_t c = 0; c < parts.size(); ++c) {
        const TensorView& tensor = memory.back()[c];
        check_tensor(parts[c].name, tensor, buffer, parts[c], plan.problem.batch);
        if (!on_cuda()) continue;
        const std::string reason = cuda::refuses(tensor);
        if (!reason.empty()) refuse(parts[c].name, ": ", reason);
      }
    }
    runner->recorder.reset();
    runner->ran = false;
    const std::span<std::byte> scratch = workspace.subspan(scratch_offset());
    if (on_cuda()) {
      const std::size_t tables = tables_offset() + (index == 0 ? 0 : forward->table_bytes);
      auto backend = cuda::make_cuda_backend(
          plan.problem, runner->program, runner->dependencies, std::move(memory),
          {workspace.subspan(tables, runner->table_bytes), scratch}, *link,
          {options.device.index, options.stream ? *options.stream : own_stream.get(), options.deterministic,
           world.timeout_seconds(), options.sm_margin, options.portable_kernels});
      runner->on_device = backend.get();
      runner->backend = std::move(backend);
    } else {
      runner->backend =
          std::make_unique<host::HostBackend>(plan.problem, runner->program, runner->dependencies, std::move(memory),
                                              scratch, world.link(), pool, world.timeout_seconds());
    }
    runner->recorder.emplace(plan.problem, runner->program, *runner->backend);
  }

  void run(std::optional<PassRunner>& runner, Pass pass) {
    if (!runner) refuse("this plan has no ", to_string(pass), " pass");
    if (!runner->recorder) refuse("no tensors are bound");
    agree_on_call(world, plan_hash, calls++, pass);
    runner->ran = true;
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

std::string_view Attention::link_name() const {
  return impl_->link == nullptr ? impl_->world.link_name() : impl_->link->name();
}

std::string_view Attention::kernels(Pass pass) const {
  const auto& runner = pass == Pass::forward ? impl_->forward : impl_->backward;
  return runner ? runner->kernels : "";
}

std::size_t Attention::workspace_bytes() const {
  return impl_->workspace_bytes();
}

void Attention::bind(const AttentionTensors& tensors, std::span<std::byte> workspace) {
  if (workspace.size() < workspace_bytes()) {
    refuse("the workspace has ", workspace.size(), " bytes; ", workspace_bytes(), " are needed");
  }
  if (reinterpret_cast<std::uintptr_t>(workspace.data()) % impl_->alignment() != 0) {
    refuse("the workspace is not aligned to ", impl_->alignment(), " bytes");
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

void Attention::wait() {
  for (const auto* runner : {&impl_->forward, &impl_->backward}) {
    if (*runner && (*runner)->on_device != nullptr && (*runner)->ran) (*runner)->on_device->wait();
  }
}

Timeline Attention::timeline(Pass pass) const {
  const auto& runner = pass == Pass::forward ? impl_->forward : impl_->backward;
  if (!runner || !runner->recorder) refuse("nothing has run");
  if (runner->on_device == nullptr) return runner->recorder->timeline(impl_->options.record_steps);
  runner->on_device->wait();
  Timeline timeline = runner->recorder->timeline(impl_->options.record_steps);
  timeline.seconds = runner->on_device->seconds();
  return timeline;
}

}  // namespace orrery
