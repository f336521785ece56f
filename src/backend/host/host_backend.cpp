#include "backend/host/host_backend.hpp"

#include <algorithm>
#include <chrono>

#include "backend/memory/exchanges.hpp"
#include "kernels/host/attend.hpp"
#include "kernels/host/rowwise.hpp"
#include "orrery/error.hpp"

namespace orrery::host {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t most_query_tokens(const RankProgram& program) {
  std::int64_t most = 0;
  for (const Step& step : program.steps) {
    if (const auto* s = std::get_if<Attend>(&step)) most = std::max(most, s->query.tokens);
    if (const auto* s = std::get_if<AttendBackward>(&step)) most = std::max(most, s->query.tokens);
  }
  return most;
}

std::size_t key_range_bytes(const RankProgram& program) {
  return aligned(static_cast<std::size_t>(most_query_tokens(program)) * sizeof(kernels::KeyRange));
}

}  // namespace

std::size_t HostBackend::scratch_bytes(const AttentionProblem& problem, const RankProgram& program, int threads) {
  return key_range_bytes(program) +
         aligned(kernels::attend_scratch_bytes(problem.head_dim, threads, program.pass == Pass::backward));
}

HostBackend::HostBackend(const AttentionProblem& problem, const RankProgram& program, const Dependencies& dependencies,
                         std::vector<BufferMemory> memory, std::span<std::byte> scratch, Link& link, ThreadPool& pool,
                         double timeout_seconds)
    : problem_(problem),
      program_(program),
      dependencies_(dependencies),
      memory_(std::move(memory)),
      pool_(pool),
      timeout_seconds_(timeout_seconds),
      key_runs_(program.steps.size()),
      times_(program.steps.size()) {
  ORRERY_CHECK(scratch.size() >= scratch_bytes(problem, program, pool.threads()), scratch.size(), " bytes of scratch");
  key_ranges_ = {reinterpret_cast<kernels::KeyRange*>(scratch.data()),
                 static_cast<std::size_t>(most_query_tokens(program))};
  kernel_scratch_ = scratch.subspan(key_range_bytes(program));

  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    if (const auto* s = std::get_if<Attend>(&step)) key_runs_[i] = key_runs(s->key_spans);
    if (const auto* s = std::get_if<AttendBackward>(&step)) key_runs_[i] = key_runs(s->key_spans);
  }
  ProgramExchanges exchanges = exchanges_of(program, dependencies, memory_);
  exchange_of_step_ = std::move(exchanges.of_step);
  session_ = link.prepare(std::move(exchanges.exchanges));
}

TensorView HostBackend::tensor(const Slice& slice, std::size_t component) const {
  return rows(memory_[static_cast<std::size_t>(slice.buffer)][component], slice);
}

void HostBackend::begin_run() {
  run_began_ = now();
  session_->begin_run(run_name_);
}

void HostBackend::issue(int step) {
  const auto index = static_cast<std::size_t>(step);
  current_ = step;
  if (exchange_of_step_[index] >= 0) {
    session_->start(exchange_of_step_[index]);
    return;
  }
  for (int earlier : dependencies_.of(step)) {
    if (exchange_of_step_[static_cast<std::size_t>(earlier)] >= 0) wait(earlier);
  }
  times_[index].began = now() - run_began_;
  std::visit([&](const auto& s) { run(s); }, program_.steps[index]);
  times_[index].ended = now() - run_began_;
}

void HostBackend::wait(int exchange_step) {
  const auto index = static_cast<std::size_t>(exchange_step);
  try {
    session_->wait(exchange_of_step_[index], timeout_seconds_);
  } catch (const Error& error) {
    fail(error.code(), exchange_error(program_, exchange_step, error.what()));
  }
}

void HostBackend::end_run() {
  for (std::size_t i = 0; i < exchange_of_step_.size(); ++i) {
    if (exchange_of_step_[i] < 0) continue;
    wait(static_cast<int>(i));
    const ExchangeTimes t = session_->times(exchange_of_step_[i]);
    times_[i].began = t.began - run_began_;
    times_[i].ended = t.ended - run_began_;
  }
  session_->end_run();
}

void HostBackend::abandon_run() noexcept {
  session_->end_run();
}

StepTimes HostBackend::times(int step) const {
  return times_[static_cast<std::size_t>(step)];
}

void HostBackend::run(const Attend& s) {
  if (s.begins) run(Clear{s.state});
  const TensorView key = tensor(s.key_value, 0), value = tensor(s.key_value, 1);
  for (const KeyRun& run : key_runs_[static_cast<std::size_t>(current_)]) {
    const Slice keys{0, run.begin, run.keys.rows(), 0, s.key_value.heads};
    if (!s.mask_free) fill_key_ranges(problem_.mask, s.query_spans, run, key_ranges_);
    kernels::attend_forward({tensor(s.query, 0), rows(key, keys), rows(value, keys), tensor(s.state, 0),
                             tensor(s.state, 1), tensor(s.state, 2), s.mask_free ? nullptr : key_ranges_.data(),
                             static_cast<float>(problem_.effective_scale())},
                            pool_, kernel_scratch_);
  }
  if (s.output.given()) run(Normalize{s.output, s.state});
}

void HostBackend::run(const AttendBackward& s) {
  if (s.begins) run(Clear{s.grad_key_value});
  const TensorView key = tensor(s.key_value, 0), value = tensor(s.key_value, 1);
  const TensorView grad_key = tensor(s.grad_key_value, 0), grad_value = tensor(s.grad_key_value, 1);
  for (const KeyRun& run : key_runs_[static_cast<std::size_t>(current_)]) {
    const Slice keys{0, run.begin, run.keys.rows(), 0, s.key_value.heads};
    if (!s.mask_free) fill_key_ranges(problem_.mask, s.query_spans, run, key_ranges_);
    kernels::attend_backward(
        {tensor(s.query, 0), tensor(s.grad_output, 0), rows(key, keys), rows(value, keys), tensor(s.output, 1),
         tensor(s.delta, 0), tensor(s.grad_query, 0), rows(grad_key, keys), rows(grad_value, keys),
         s.mask_free ? nullptr : key_ranges_.data(), static_cast<float>(problem_.effective_scale())},
        pool_, kernel_scratch_);
  }
  if (s.result.given()) run(Copy{s.result, s.grad_key_value});
}

void HostBackend::run(const Clear& s) {
  const BufferKind kind = program_.buffers[static_cast<std::size_t>(s.into.buffer)].kind;
  if (kind == BufferKind::state) {
    kernels::clear_state({tensor(s.into, 0), tensor(s.into, 1), tensor(s.into, 2)}, pool_);
  } else if (kind == BufferKind::scan) {
    kernels::clear_scan({tensor(s.into, 0), tensor(s.into, 1)}, pool_);
  } else {
    for (std::size_t c = 0; c < memory_[static_cast<std::size_t>(s.into.buffer)].size(); ++c) {
      kernels::clear(tensor(s.into, c), pool_);
    }
  }
}

void HostBackend::run(const Merge& s) {
  kernels::merge({tensor(s.into, 0), tensor(s.into, 1), tensor(s.into, 2)},
                 {tensor(s.from, 0), tensor(s.from, 1), tensor(s.from, 2)}, pool_);
}

void HostBackend::run(const Add& s) {
  for (std::size_t c = 0; c < memory_[static_cast<std::size_t>(s.into.buffer)].size(); ++c) {
    kernels::add(tensor(s.into, c), tensor(s.from, c), pool_);
  }
}

void HostBackend::run(const Compose& s) {
  kernels::compose({tensor(s.into, 0), tensor(s.into, 1)}, {tensor(s.earlier, 0), tensor(s.earlier, 1)}, pool_);
}

void HostBackend::run(const Copy& s) {
  for (std::size_t c = 0; c < memory_[static_cast<std::size_t>(s.into.buffer)].size(); ++c) {
    kernels::copy(tensor(s.into, c), tensor(s.from, c), pool_);
  }
}

void HostBackend::run(const Normalize& s) {
  kernels::normalize({tensor(s.state, 0), tensor(s.state, 1), tensor(s.state, 2)}, tensor(s.into, 0), tensor(s.into, 1),
                     pool_);
}

void HostBackend::run(const Delta& s) {
  kernels::delta(tensor(s.output, 0), tensor(s.grad_output, 0), tensor(s.into, 0), pool_);
  if (s.cleared.given()) run(Clear{s.cleared});
}

}  // namespace orrery::host
