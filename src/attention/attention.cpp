#include "orrery/attention.hpp"

#include <algorithm>
#include <list>
#include <optional>
#include <string>
#include <utility>

#include "attention/agreement.hpp"
#include "attention/compute_devices.hpp"
#include "attention/tensors.hpp"
#include "backend/trace/recorder.hpp"
#include "core/ledger.hpp"
#include "orrery/check.hpp"
#include "orrery/error.hpp"
#include "orrery/executor.hpp"

namespace orrery {
namespace {

#ifdef NDEBUG
constexpr bool kDebugBuild = false;
#else
constexpr bool kDebugBuild = true;
#endif

// What a pass is, whatever it is bound to.
struct PassProgram {
  PassProgram(const AttentionProblem& problem, RankProgram rank_program)
      : program(std::move(rank_program)), dependencies(program) {
    validate(program, problem);
  }

  RankProgram program;
  Dependencies dependencies;
  ScratchBytes scratch;
  std::string_view kernels;
  bool writes_kept = false;
  bool agreed = false;  // the ranks have met at a call of it
};

// A pass on the tensors and memory of one binding.
struct BoundPass {
  std::unique_ptr<MemoryBackend> backend;
  std::optional<trace::Recorder> recorder;
  Ledger::Entry tables;  // where they lie
  bool ran = false, awaited = true;
};

struct Memory {
  std::span<std::byte> scratch, kept;
};

struct Binding {
  std::vector<TensorView> tensors;  // by port
  Memory memory;
  Ledger::Entry left;  // what a forward run leaves for its backward run
  BoundPass forward, backward;
};

bool same(std::span<std::byte> a, std::span<std::byte> b) {
  return a.data() == b.data() && a.size() == b.size();
}

bool writes_kept(const RankProgram& program) {
  bool writes = false;
  for (const Step& step : program.steps) {
    for_each_access(step, [&](const Access& access) {
      const Buffer& buffer = program.buffers[static_cast<std::size_t>(access.slice.buffer)];
      writes = writes || (buffer.role == BufferRole::kept && access.mode != AccessMode::read);
    });
  }
  return writes;
}

}  // namespace

struct Attention::Impl {
  World& world;
  Plan plan;
  AttentionOptions options;
  Agree agree;
  std::uint64_t plan_hash;
  std::uint64_t owner;  // in the world's ledger
  std::unique_ptr<ComputeDevice> device;
  std::optional<PassProgram> forward, backward;
  std::vector<Port> ports;
  std::optional<Arena> arena;
  ScratchBytes scratch;         // tables of all passes; a run of the one that needs most
  std::list<Binding> bindings;  // the one bound last comes first
  bool bound = false;

  Impl(World& w, Plan p, const AttentionOptions& o)
      : world(w),
        plan(std::move(p)),
        options(o),
        agree(o.agree.value_or(kDebugBuild ? Agree::always : Agree::first)),
        plan_hash(hash(plan.text())),
        owner(world.ledger().new_owner()) {
    agree_on_plan(world, concat(plan.text(), " device=", to_string(options.device.kind),
                                " agree=", agree == Agree::first ? "first" : "always"));
    // Connecting is collective, so nobody comes to it who has something to object.
    all_or_none(world, [&] { prepare_programs(); });
    all_or_none(world, [&] { device->connect(world, lanes()); });
    all_or_none(world, [&] { measure(); });
  }
  ~Impl() { world.ledger().forget(owner); }

  void prepare_programs() {
    if (plan.topology.world_size != world.world_size()) {
      refuse("the plan is for ", plan.topology.world_size, " ranks, the world has ", world.world_size());
    }
    if (options.bindings < 1) refuse(options.bindings, " bindings that stay prepared; at least 1");
    device = open_compute_device(options);
    device->check(plan.problem, plan.options.backward);
    if (kDebugBuild && world.rank() == 0) {
      const auto findings = check(plan, {.planned = !device->runs_fused(), .fused = device->runs_fused()});
      if (!findings.empty()) fail(ErrorCode::bug, "the plan is not proved: ", to_text(findings.front()));
    }
    prepare_program(forward, Pass::forward);
    if (plan.options.backward) prepare_program(backward, Pass::backward);
    ports = orrery::ports(plan.problem, programs());
    arena.emplace(plan.problem, programs());
  }

  void prepare_program(std::optional<PassProgram>& of_pass, Pass pass) {
    RankProgram program = plan.program(world.rank(), pass);
    if (device->runs_fused()) program = fuse(program);
    of_pass.emplace(plan.problem, std::move(program));
    of_pass->writes_kept = writes_kept(of_pass->program);
    of_pass->kernels = device->kernels(plan.problem, pass);
  }

  void measure() {
    for (std::optional<PassProgram>* of_pass : {&forward, &backward}) {
      if (!*of_pass) continue;
      ScratchBytes& needed = (*of_pass)->scratch;
      needed = device->scratch_bytes(plan.problem, (*of_pass)->program);
      scratch.tables += needed.tables;
      scratch.run = std::max(scratch.run, needed.run);
    }
  }

  int lanes() const { return std::max(forward->program.lanes, backward ? backward->program.lanes : 1); }

  std::vector<const RankProgram*> programs() const {
    std::vector<const RankProgram*> all = {&forward->program};
    if (backward) all.push_back(&backward->program);
    return all;
  }

  std::size_t rounded(std::size_t bytes) const { return aligned(bytes, device->alignment()); }
  std::size_t kept_bytes() const { return rounded(arena->kept_bytes()); }
  // In the scratch, aligned behind the arena, lie the tables of each pass, then what runs share.
  std::size_t tables_offset() const { return rounded(arena->bytes()); }
  std::size_t run_offset() const { return tables_offset() + scratch.tables; }
  std::size_t scratch_bytes() const { return run_offset() + scratch.run; }

  void check_memory(std::string_view name, std::span<std::byte> memory, std::size_t needed) const {
    if (memory.size() < needed) refuse("the ", name, " has ", memory.size(), " bytes; ", needed, " are needed");
    if (reinterpret_cast<std::uintptr_t>(memory.data()) % device->alignment() != 0) {
      refuse("the ", name, " is not aligned to ", device->alignment(), " bytes");
    }
  }

  // `tensors` by name or as a structure.
  void bind(const auto& tensors, std::span<std::byte> workspace) {
    bound = false;
    check_memory("workspace", workspace, kept_bytes() + scratch_bytes());
    bind(by_port(ports, tensors),
         Memory{workspace.subspan(kept_bytes(), scratch_bytes()), workspace.first(kept_bytes())});
  }
  void bind(const auto& tensors, std::span<std::byte> workspace, std::span<std::byte> kept) {
    bound = false;
    check_memory("workspace", workspace, scratch_bytes());
    check_memory("kept memory", kept, kept_bytes());
    bind(by_port(ports, tensors), Memory{workspace.first(scratch_bytes()), kept.first(kept_bytes())});
  }

  // What was bound like this before is still prepared; only what the caller may have changed meanwhile is done again.
  void bind(std::vector<TensorView> tensors, const Memory& memory) {
    const NamedMemory named[] = {{"the workspace", memory.scratch}, {"the kept memory", memory.kept}};
    check_tensors(ports, tensors, named, options.device, *device);
    const auto known = std::find_if(bindings.begin(), bindings.end(), [&](const Binding& one) {
      return one.tensors == tensors && same(one.memory.scratch, memory.scratch) && same(one.memory.kept, memory.kept);
    });
    if (known != bindings.end()) {
      bindings.splice(bindings.begin(), bindings, known);
    } else {
      while (bindings.size() >= static_cast<std::size_t>(options.bindings)) bindings.pop_back();
      prepare(std::move(tensors), memory);
    }
    Binding& now = bindings.front();
    put_tables(now.forward);
    if (backward) put_tables(now.backward);
    world.ledger().reserve(3);  // the tables of both passes, and what a forward run leaves
    bound = true;
  }

  void prepare(std::vector<TensorView> tensors, const Memory& memory) {
    std::vector<TensorView> left{bytes_view(memory.kept)};
    for (std::size_t i = 0; i < ports.size(); ++i) {  // what forward leaves in tensors, and what it was made of
      const bool common = ports[i].forward != PortUse::none && ports[i].backward == PortUse::input;
      if (common) left.push_back(tensors[i]);
    }
    Binding fresh{std::move(tensors), memory, {owner, std::move(left)}, {}, {}};
    prepare(fresh, fresh.forward, *forward, 0);
    if (backward) prepare(fresh, fresh.backward, *backward, 1);
    bindings.push_front(std::move(fresh));
  }

  // The caller's tensors of an input or output buffer.
  BufferMemory callers(const Buffer& buffer, const Binding& binding) const {
    BufferMemory memory;
    for (const Component& c : components(buffer)) {
      const std::string name = port_name(buffer, c);
      const auto port = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.name == name; });
      memory.push_back(binding.tensors[static_cast<std::size_t>(port - ports.begin())]);
    }
    return memory;
  }

  void prepare(const Binding& binding, BoundPass& pass, const PassProgram& of_pass, std::size_t index) {
    std::vector<BufferMemory> memory;
    for (std::size_t i = 0; i < of_pass.program.buffers.size(); ++i) {
      const Buffer& buffer = of_pass.program.buffers[i];
      const bool plans = buffer.role == BufferRole::workspace || buffer.role == BufferRole::kept;
      memory.push_back(
          plans ? arena->place(index, static_cast<int>(i), binding.memory.scratch.data(), binding.memory.kept.data())
                : callers(buffer, binding));
    }
    const std::span<std::byte> all = binding.memory.scratch;
    const Scratch here{
        all.subspan(tables_offset() + (index == 0 ? 0 : forward->scratch.tables), of_pass.scratch.tables),
        all.subspan(run_offset())};
    pass.tables = {owner, {bytes_view(here.tables)}};
    pass.backend = device->make_backend(plan.problem, of_pass.program, of_pass.dependencies, std::move(memory), here);
    pass.recorder.emplace(plan.problem, of_pass.program, *pass.backend);
  }

  void put_tables(BoundPass& pass) {
    pass.backend->put_tables();
    world.ledger().overwrite(pass.tables.memory().front());
    world.ledger().note(pass.tables);
  }

  std::string objection(Pass pass) const {
    if (!bound) return "no tensors are bound";
    if (pass == Pass::forward || world.ledger().holds(bindings.front().left)) return "";
    return "there is no forward run for this backward run: none ran on these tensors with this kept memory, or another "
           "run has written over what it left";
  }

  void run(std::optional<PassProgram>& of_pass, Pass pass) {
    if (!of_pass) refuse("this plan has no ", to_string(pass), " pass");
    const RunName name{plan_hash, world.ledger().runs(), pass == Pass::backward ? 1u : 0u};
    const std::string objects = objection(pass);
    if (agree == Agree::always || !of_pass->agreed) {
      agree_on_call(world, name, objects);
      of_pass->agreed = true;
    } else if (!objects.empty()) {
      refuse(objects);
    }
    world.ledger().count_run();
    Binding& now = bindings.front();
    BoundPass& here = pass == Pass::forward ? now.forward : now.backward;
    if (!world.ledger().holds(here.tables)) put_tables(here);  // another attention shares the scratch
    note_writes(now, *of_pass);
    here.ran = true;
    here.awaited = false;
    here.backend->name_run(name);
    Executor(of_pass->program, *here.recorder).run();
    if (pass == Pass::forward) world.ledger().note(now.left);
  }

  // Before a run, so that one that fails leaves nothing that seems whole.
  void note_writes(const Binding& binding, const PassProgram& of_pass) {
    Ledger& ledger = world.ledger();
    ledger.overwrite(bytes_view(binding.memory.scratch.first(tables_offset())));
    ledger.overwrite(bytes_view(binding.memory.scratch.subspan(run_offset())));
    if (of_pass.writes_kept) ledger.overwrite(bytes_view(binding.memory.kept));
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (ports[i].use(of_pass.program.pass) == PortUse::output) ledger.overwrite(binding.tensors[i]);
    }
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
  const auto& of_pass = pass == Pass::forward ? impl_->forward : impl_->backward;
  if (!of_pass) refuse("this plan has no ", to_string(pass), " pass");
  return of_pass->program;
}

std::string_view Attention::link_name() const {
  return impl_->device->link_name();
}

std::string_view Attention::kernels(Pass pass) const {
  const auto& of_pass = pass == Pass::forward ? impl_->forward : impl_->backward;
  return of_pass ? of_pass->kernels : "";
}

std::size_t Attention::workspace_bytes() const {
  return impl_->kept_bytes() + impl_->scratch_bytes();
}
std::size_t Attention::kept_bytes() const {
  return impl_->kept_bytes();
}

std::span<const Port> Attention::ports() const {
  return impl_->ports;
}

void Attention::bind(std::span<const NamedTensor> tensors, std::span<std::byte> workspace) {
  impl_->bind(tensors, workspace);
}
void Attention::bind(const AttentionTensors& tensors, std::span<std::byte> workspace) {
  impl_->bind(tensors, workspace);
}
void Attention::bind(std::span<const NamedTensor> tensors, std::span<std::byte> workspace, std::span<std::byte> kept) {
  impl_->bind(tensors, workspace, kept);
}
void Attention::bind(const AttentionTensors& tensors, std::span<std::byte> workspace, std::span<std::byte> kept) {
  impl_->bind(tensors, workspace, kept);
}

void Attention::forward() {
  impl_->run(impl_->forward, Pass::forward);
}
void Attention::backward() {
  impl_->run(impl_->backward, Pass::backward);
}

void Attention::assume_forward() {
  if (!impl_->bound) refuse("no tensors are bound");
  impl_->world.ledger().note(impl_->bindings.front().left);
}

void Attention::wait() {
  for (Binding& binding : impl_->bindings) {
    for (BoundPass* pass : {&binding.forward, &binding.backward}) {
      if (pass->awaited) continue;
      pass->backend->wait();
      pass->awaited = true;
    }
  }
}

Timeline Attention::timeline(Pass pass) const {
  if (!impl_->bound) refuse("nothing has run");
  const Binding& now = impl_->bindings.front();
  const BoundPass& here = pass == Pass::forward ? now.forward : now.backward;
  if (!here.ran) refuse("nothing has run");
  here.backend->wait();
  Timeline timeline = here.recorder->timeline(impl_->options.record_steps);
  timeline.seconds = here.backend->seconds().value_or(timeline.seconds);
  return timeline;
}

}  // namespace orrery
