#include "backend/cuda/cuda_backend.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "backend/cuda/gaps.hpp"
#include "backend/cuda/step_tables.hpp"
#include "backend/memory/exchanges.hpp"
#include "backend/memory/step_tensors.hpp"
#include "device/check.hpp"
#include "device/named_range.hpp"
#include "device/stream.hpp"
#include "kernels/cuda/attend.hpp"
#include "link/deadline.hpp"
#include "link/stream_link.hpp"
#include "orrery/error.hpp"

namespace orrery::cuda {
namespace {

using device::DeviceGuard;
using device::Event;
using device::EventHandle;
using device::StreamHandle;
using device::Timing;
using kernels::KeyRange;
using kernels::cuda::RangeBounds;

constexpr std::size_t rounded(std::size_t bytes) {
  return aligned(bytes, kDeviceAlignment);
}

// Where the parts of a run's scratch lie, behind its key ranges.
struct ScratchPlan {
  std::size_t bounds = 0, kernel = 0, staging = 0;

  ScratchPlan(const AttentionProblem& problem, const RankProgram& program) {
    std::int64_t query_len = 0;
    std::size_t kernel_bytes = 0;
    for (const Step& step : program.steps) {
      const Attending* const s = attending(step);
      if (s == nullptr) continue;
      query_len = std::max(query_len, s->query.tokens);
      kernel_bytes = std::max(kernel_bytes, std::holds_alternative<Attend>(step)
                                                ? kernels::cuda::kForwardScratchBytes
                                                : kernels::cuda::attend_backward_scratch_bytes(
                                                      problem.batch, s->query.tokens, s->query.heads,
                                                      s->key_value.tokens, s->key_value.heads, problem.head_dim));
    }
    const std::int64_t tiles = (query_len + kernels::cuda::kRangeTile - 1) / kernels::cuda::kRangeTile;
    bounds = rounded(static_cast<std::size_t>(query_len) * sizeof(KeyRange));
    kernel = bounds + rounded(static_cast<std::size_t>(tiles) * sizeof(RangeBounds));
    staging = kernel + rounded(kernel_bytes);
  }
};

class Runner final : public MemoryBackend {
 public:
  Runner(const AttentionProblem& problem, const RankProgram& program, const Dependencies& dependencies,
         std::vector<BufferMemory> memory, const Scratch& scratch, StreamLink& link, const CudaOptions& options);

  void name_run(const RunName& name) override { run_name_ = name; }
  void put_tables() override;
  void begin_run() override;
  void issue(int step) override;
  void end_run() override;
  void abandon_run() noexcept override { session_->end_run(); }
  void wait() override;
  std::optional<double> seconds() const override { return run_seconds(); }
  double began() const override { return began_; }
  StepTimes times(int step) const override;

 private:
  // Of a step that computes.
  struct Computed {
    Event began{Timing::on}, ended{Timing::on};
    std::vector<int> joins;  // exchanges it waits for
  };

  double run_seconds() const;
  void follow_caller();
  void lead_caller(const Event& done);
  void require_events() const;
  // Calls the session about an exchange; what it throws comes to say which step of which rank that is.
  template <typename Call>
  void naming(int exchange, const Call& call) const;
  void join(int exchange);
  int last_computed(int step) const;
  // Puts the ranges of one run of keys where the attend's kernel reads them.
  kernels::cuda::KeyRanges ranges(const StepTables::Attended& attended, const StepTables::Run& run);

  void run(const Exchange&) {}
  void run(const Attend& s);
  void run(const AttendBackward& s);
  void run(const Apply& s) { kernels::apply(tensors_.operands(s), stream_); }

  const AttentionProblem& problem_;
  const RankProgram& program_;
  const Dependencies& dependencies_;
  const CudaOptions options_;
  const StreamLink& link_;
  const StepTensors tensors_;
  const std::vector<Slice> gaps_;
  const StepTables tables_;
  const Scratch scratch_;
  const ScratchPlan places_;
  const StreamHandle stream_;
  Event called_;  // on the caller's stream, where that is not ours
  Event origin_{Timing::on}, finished_{Timing::on};
  std::vector<std::unique_ptr<Computed>> computed_;  // by step; null for exchanges
  std::vector<int> exchange_of_step_, step_of_exchange_;
  std::vector<int> behind_;  // by exchange: the last computing step it depends on, or -1
  std::unique_ptr<StreamSession> session_;

  std::vector<std::string> names_;  // of the steps, for profilers

  // Of the run.
  RunName run_name_;
  double began_ = 0;       // when origin_ was reached, as far as the host knows
  bool captured_ = false;  // into a CUDA graph, outside of which its events mean nothing
  int current_ = -1;
  std::vector<char> joined_;  // exchanges that computation already stands behind
  // Whose ranges lie in the scratch: a mask, and tables of queries and keys.
  using Filled = std::tuple<int, std::size_t, std::size_t>;
  Filled filled_;
  static constexpr Filled kNothing = {-1, SIZE_MAX, SIZE_MAX};
};

Runner::Runner(const AttentionProblem& problem, const RankProgram& program, const Dependencies& dependencies,
               std::vector<BufferMemory> memory, const Scratch& scratch, StreamLink& link, const CudaOptions& options)
    : problem_(problem),
      program_(program),
      dependencies_(dependencies),
      options_(options),
      link_(link),
      tensors_(program, std::move(memory)),
      gaps_(gaps(program)),
      tables_(problem, program),
      scratch_(scratch),
      places_(problem, program),
      stream_(static_cast<StreamHandle>(options.stream)),
      computed_(program.steps.size()),
      filled_(kNothing) {
  ProgramExchanges exchanges = exchanges_of(program, dependencies, tensors_.memory());
  const std::size_t needed = places_.staging + rounded(link.staging_bytes(exchanges.exchanges));
  ORRERY_CHECK(scratch.run.size() >= needed, scratch.run.size(), " bytes of scratch where ", needed, " are needed");
  const std::span<const std::byte> tables = tables_.block();
  ORRERY_CHECK(scratch.tables.size() >= tables.size(), scratch.tables.size(), " bytes for ", tables.size());

  exchange_of_step_ = std::move(exchanges.of_step);
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    if (exchange_of_step_[i] >= 0) {
      step_of_exchange_.push_back(static_cast<int>(i));
      continue;
    }
    computed_[i] = std::make_unique<Computed>();
    for (int earlier : dependencies.of(static_cast<int>(i))) {
      const int e = exchange_of_step_[static_cast<std::size_t>(earlier)];
      if (e >= 0) computed_[i]->joins.push_back(e);
    }
  }
  for (int step : step_of_exchange_) behind_.push_back(last_computed(step));
  for (int i = 0; i < static_cast<int>(program.steps.size()); ++i) {
    names_.push_back(concat(to_string(program.pass), ' ', i, ": ", to_text(program, i)));
  }
  joined_.assign(exchanges.exchanges.size(), 0);
  session_ = link.prepare(std::move(exchanges.exchanges), scratch_.run.data() + places_.staging);
}

// Of the default stream, the legacy one. The default streams of threads wait for it, and it for them.
void Runner::follow_caller() {
  if (!options_.own_stream) return;
  called_.record(cudaStreamLegacy);
  device::wait(stream_, called_.handle());
}

void Runner::lead_caller(const Event& done) {
  if (options_.own_stream) device::wait(cudaStreamLegacy, done.handle());
}

void Runner::put_tables() {
  const DeviceGuard guard(options_.device);
  follow_caller();
  const std::span<const std::byte> tables = tables_.block();
  ORRERY_CUDA_CHECK(
      cudaMemcpyAsync(scratch_.tables.data(), tables.data(), tables.size(), cudaMemcpyHostToDevice, stream_));
  called_.record(stream_);
  lead_caller(called_);
}

void Runner::begin_run() {
  const DeviceGuard guard(options_.device);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  ORRERY_CUDA_CHECK(cudaStreamIsCapturing(stream_, &capture));
  captured_ = capture != cudaStreamCaptureStatusNone;
  if (captured_ && link_.refuses_capture() != nullptr) refuse(link_.refuses_capture());
  follow_caller();
  std::fill(joined_.begin(), joined_.end(), 0);
  filled_ = kNothing;
  session_->begin_run(run_name_);
  for (const Slice& gap : gaps_) {
    for (const TensorView& tensor : tensors_.operand(gap).components()) kernels::cuda::clear(tensor, stream_);
  }
  began_ = steady_seconds();
  origin_.record(stream_);
}

void Runner::issue(int step) {
  const DeviceGuard guard(options_.device);
  const auto index = static_cast<std::size_t>(step);
  const device::NamedRange range(names_[index].c_str());
  if (exchange_of_step_[index] >= 0) {
    const int e = exchange_of_step_[index], last = behind_[static_cast<std::size_t>(e)];
    const Event& ready = last < 0 ? origin_ : computed_[static_cast<std::size_t>(last)]->ended;
    naming(e, [&] { session_->start(e, ready.handle()); });
    return;
  }
  const Computed& computed = *computed_[index];
  for (int exchange : computed.joins) join(exchange);
  current_ = step;
  computed.began.record(stream_);
  std::visit([&](const auto& s) { run(s); }, program_.steps[index]);
  computed.ended.record(stream_);
}

// The last computing step that an exchange depends on, or -1; computation is in order, so that one stands for all.
int Runner::last_computed(int step) const {
  int last = -1;
  for (int earlier : dependencies_.of(step)) {
    if (computed_[static_cast<std::size_t>(earlier)]) last = std::max(last, earlier);
  }
  return last;
}

template <typename Call>
void Runner::naming(int exchange, const Call& call) const {
  try {
    call();
  } catch (const Error& error) {
    fail(error.code(), exchange_error(program_, step_of_exchange_[static_cast<std::size_t>(exchange)], error.what()));
  }
}

void Runner::join(int exchange) {
  if (joined_[static_cast<std::size_t>(exchange)] != 0) return;
  naming(exchange, [&] { session_->join(exchange, stream_, options_.timeout_seconds); });
  joined_[static_cast<std::size_t>(exchange)] = 1;
}

void Runner::end_run() {
  const DeviceGuard guard(options_.device);
  for (std::size_t e = 0; e < joined_.size(); ++e) join(static_cast<int>(e));
  finished_.record(stream_);
  lead_caller(finished_);
  session_->end_run();
}

void Runner::require_events() const {
  if (captured_) refuse("this run was captured into a CUDA graph: wait for the graph's launches, on their stream");
}

double Runner::run_seconds() const {
  require_events();
  return finished_.seconds_since(origin_.handle());
}

void Runner::wait() {
  require_events();
  const DeviceGuard guard(options_.device);
  const bool under_way = !finished_.reached();
  for (int e = 0; e < static_cast<int>(joined_.size()); ++e) {
    naming(e, [&] { session_->wait(e, options_.timeout_seconds); });
  }
  finished_.wait_until_reached();
  // A stream that was busy reached the run's origin later than it was recorded; the end has just been seen.
  if (under_way) began_ = std::max(began_, steady_seconds() - run_seconds());
}

StepTimes Runner::times(int step) const {
  require_events();
  const auto index = static_cast<std::size_t>(step);
  StepTimes times;
  if (exchange_of_step_[index] >= 0) {
    const ExchangeTimes moved = session_->times(exchange_of_step_[index], origin_.handle());
    times.began = moved.began;
    times.ended = moved.ended;
    return times;
  }
  times.began = computed_[index]->began.seconds_since(origin_.handle());
  times.ended = computed_[index]->ended.seconds_since(origin_.handle());
  return times;
}

kernels::cuda::KeyRanges Runner::ranges(const StepTables::Attended& attended, const StepTables::Run& run) {
  if (attended.mask_free) return {};
  auto* key_rows = reinterpret_cast<KeyRange*>(scratch_.run.data());
  auto* bounds = reinterpret_cast<RangeBounds*>(scratch_.run.data() + places_.bounds);
  const Filled wanted(attended.mask, attended.query_spans, run.key_spans);
  if (filled_ != wanted || run.tokens == 0) {
    kernels::cuda::FillKeyRanges call = tables_.fill(current_, run, scratch_.tables.data());
    call.rows = key_rows;
    call.tiles = bounds;
    kernels::cuda::fill_key_ranges(call, stream_);
    filled_ = run.tokens == 0 ? kNothing : wanted;
  }
  return {key_rows, bounds};
}

void Runner::run(const Attend& s) {
  const TensorView key = tensors_(s.key_value, kKey), value = tensors_(s.key_value, kValue);
  const StepTables::Attended& attended = tables_.of(current_);
  for (std::size_t i = 0; i < attended.runs.size(); ++i) {
    const StepTables::Run& run = attended.runs[i];
    const Slice keys{0, run.begin, run.tokens, 0, s.key_value.heads};
    kernels::cuda::AttendForward call{};
    call.query = tensors_(s.query, kQuery);
    call.key = rows(key, keys);
    call.value = rows(value, keys);
    call.accumulator = tensors_(s.owned, kAccumulator);
    call.row_max = tensors_(s.owned, kRowMax);
    call.row_sum = tensors_(s.owned, kRowSum);
    call.key_ranges = ranges(attended, run);
    call.scale = static_cast<float>(problem_.effective_scale());
    call.first = s.begins && i == 0;
    call.last = s.results.given() && i + 1 == attended.runs.size();
    if (call.last) {
      call.out = tensors_(s.results, kOut);
      call.lse = tensors_(s.results, kLse);
    }
    call.sm_margin = options_.sm_margin;
    call.kernels = kernels_asked(options_.portable_kernels);
    call.scratch = scratch_.run.data() + places_.kernel;
    kernels::cuda::attend_forward(call, stream_);
  }
}

void Runner::run(const AttendBackward& s) {
  const TensorView key = tensors_(s.key_value, kKey), value = tensors_(s.key_value, kValue);
  const TensorView grad_key = tensors_(s.owned, kGradKey), grad_value = tensors_(s.owned, kGradValue);
  const StepTables::Attended& attended = tables_.of(current_);
  // Runs share no keys, so a run is first or last on its own keys when the step is first or last on all of them.
  for (const StepTables::Run& run : attended.runs) {
    const Slice keys{0, run.begin, run.tokens, 0, s.key_value.heads};
    kernels::cuda::AttendBackward call{};
    call.query = tensors_(s.query, kQuery);
    call.grad_out = tensors_(s.grad_output, kGradOut);
    call.key = rows(key, keys);
    call.value = rows(value, keys);
    call.lse = tensors_(s.output, kLse);
    call.delta = tensors_(s.delta, kDelta);
    call.grad_query = tensors_(s.grad_query, kGradQuery);
    call.grad_key = rows(grad_key, keys);
    call.grad_value = rows(grad_value, keys);
    call.key_ranges = ranges(attended, run);
    call.scale = static_cast<float>(problem_.effective_scale());
    call.first = s.begins;
    call.last = s.results.given();
    if (call.last) {
      call.key_out = rows(tensors_(s.results, kGradKey), keys);
      call.value_out = rows(tensors_(s.results, kGradValue), keys);
    }
    call.deterministic = options_.deterministic;
    call.sm_margin = options_.sm_margin;
    call.kernels = kernels_asked(options_.portable_kernels);
    call.scratch = scratch_.run.data() + places_.kernel;
    kernels::cuda::attend_backward(call, stream_);
  }
}

// A tensor of the caller's, as unfavourable as it may be: no two rows lie together.
TensorView scattered(const Component& c, const Buffer& buffer, std::int64_t batch) {
  const std::int64_t row = c.width + 8, token = row * (buffer.heads + 1);
  return {nullptr, c.dtype, batch, buffer.tokens, buffer.heads, c.width, token * (buffer.tokens + 1), token, row};
}

}  // namespace

ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program, StreamLink& link) {
  const RankProgram* const programs[] = {&program};
  const Arena arena(problem, programs);
  auto* const base = reinterpret_cast<std::byte*>(kDeviceAlignment);  // only its alignment matters
  std::vector<BufferMemory> memory;
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    if (buffer.role == BufferRole::workspace || buffer.role == BufferRole::kept) {
      memory.push_back(arena.place(0, static_cast<int>(i), base, base));
      continue;
    }
    BufferMemory& tensors = memory.emplace_back();
    for (const Component& c : components(buffer)) {
      tensors.push_back(scattered(c, buffer, problem.batch));
    }
  }
  const ProgramExchanges exchanges = exchanges_of(program, Dependencies(program), memory);
  return {rounded(StepTables(problem, program).block().size()),
          ScratchPlan(problem, program).staging + rounded(link.staging_bytes(exchanges.exchanges))};
}

std::unique_ptr<MemoryBackend> make_backend(const AttentionProblem& problem, const RankProgram& program,
                                            const Dependencies& dependencies, std::vector<BufferMemory> memory,
                                            const Scratch& scratch, StreamLink& link, const CudaOptions& options) {
  const DeviceGuard guard(options.device);
  return std::make_unique<Runner>(problem, program, dependencies, std::move(memory), scratch, link, options);
}

}  // namespace orrery::cuda
