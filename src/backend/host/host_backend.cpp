#include "backend/host/host_backend.hpp"

#include <algorithm>
#include <chrono>

#include "backend/memory/exchanges.hpp"
#include "kernels/host/attend.hpp"
#include "orrery/error.hpp"

namespace orrery::host {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t most_query_tokens(const RankProgram& program) {
  std::int64_t most = 0;
  for (const Step& step : program.steps) {
    if (const Attending* s = attending(step)) most = std::max(most, s->query.tokens);
  }
  return most;
}

std::size_t key_range_bytes(const RankProgram& program) {
  return aligned(static_cast<std::size_t>(most_query_tokens(program)) * sizeof(kernels::KeyRange), kHostAlignment);
}

}  // namespace

std::size_t HostBackend::scratch_bytes(const AttentionProblem& problem, const RankProgram& program, int threads) {
  return key_range_bytes(program) +
         aligned(kernels::attend_scratch_bytes(problem.head_dim, threads, program.pass == Pass::backward),
                 kHostAlignment);
}

HostBackend::HostBackend(const AttentionProblem& problem, const RankProgram& program, const Dependencies& dependencies,
                         std::vector<BufferMemory> memory, std::span<std::byte> scratch, Link& link, ThreadPool& pool,
                         double timeout_seconds)
    : problem_(problem),
      program_(program),
      dependencies_(dependencies),
      tensors_(program, std::move(memory)),
      pool_(pool),
      timeout_seconds_(timeout_seconds),
      key_runs_(program.steps.size()),
      times_(program.steps.size()) {
  ORRERY_CHECK(scratch.size() >= scratch_bytes(problem, program, pool.threads()), scratch.size(), " bytes of scratch");
  key_ranges_ = {reinterpret_cast<kernels::KeyRange*>(scratch.data()),
                 static_cast<std::size_t>(most_query_tokens(program))};
  kernel_scratch_ = scratch.subspan(key_range_bytes(program));

  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    if (const Attending* s = attending(program.steps[i])) key_runs_[i] = key_runs(s->key_spans);
  }
  ProgramExchanges exchanges = exchanges_of(program, dependencies, tensors_.memory());
  exchange_of_step_ = std::move(exchanges.of_step);
  session_ = link.prepare(std::move(exchanges.exchanges));
}

void HostBackend::begin_run() {
  run_began_ = now();
  session_->begin_run(run_name_);
}

void HostBackend::issue(int step) {
  const auto index = static_cast<std::size_t>(step);
  current_ = step;
  if (exchange_of_step_[index] >= 0) {
    const double began = now();
    session_->start(exchange_of_step_[index]);
    times_[index].held = now() - began;
    return;
  }
  for (int earlier : dependencies_.of(step)) {
    if (exchange_of_step_[static_cast<std::size_t>(earlier)] >= 0) await(earlier);
  }
  times_[index].began = now() - run_began_;
  std::visit([&](const auto& s) { run(s); }, program_.steps[index]);
  times_[index].ended = now() - run_began_;
}

void HostBackend::await(int exchange_step) {
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
    await(static_cast<int>(i));
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

template <typename Call>
void HostBackend::for_each_key_run(const Attending& s, const Call& call) {
  for (const KeyRun& run : key_runs_[static_cast<std::size_t>(current_)]) {
    if (!s.mask_free) fill_key_ranges(mask_of(program_, problem_, s.mask), s.query_spans, run, key_ranges_);
    call(Slice{0, run.begin, run.keys.rows(), 0, s.key_value.heads}, s.mask_free ? nullptr : key_ranges_.data());
  }
}

void HostBackend::run(const Attend& s) {
  if (s.begins) run(Apply{Operation::clear, {s.owned}});
  const TensorView key = tensors_(s.key_value, kKey), value = tensors_(s.key_value, kValue);
  for_each_key_run(s, [&](const Slice& keys, const kernels::KeyRange* ranges) {
    kernels::attend_forward({tensors_(s.query, kQuery), rows(key, keys), rows(value, keys),
                             tensors_(s.owned, kAccumulator), tensors_(s.owned, kRowMax), tensors_(s.owned, kRowSum),
                             ranges, static_cast<float>(problem_.effective_scale())},
                            pool_, kernel_scratch_);
  });
  if (s.results.given()) run(Apply{Operation::normalize, {s.results, s.owned}});
}

void HostBackend::run(const AttendBackward& s) {
  if (s.begins) run(Apply{Operation::clear, {s.owned}});
  const TensorView key = tensors_(s.key_value, kKey), value = tensors_(s.key_value, kValue);
  const TensorView grad_key = tensors_(s.owned, kGradKey), grad_value = tensors_(s.owned, kGradValue);
  for_each_key_run(s, [&](const Slice& keys, const kernels::KeyRange* ranges) {
    kernels::attend_backward(
        {tensors_(s.query, kQuery), tensors_(s.grad_output, kGradOut), rows(key, keys), rows(value, keys),
         tensors_(s.output, kLse), tensors_(s.delta, kDelta), tensors_(s.grad_query, kGradQuery), rows(grad_key, keys),
         rows(grad_value, keys), ranges, static_cast<float>(problem_.effective_scale())},
        pool_, kernel_scratch_);
  });
  if (s.results.given()) run(Apply{Operation::copy, {s.results, s.owned}});
}

void HostBackend::run(const Apply& s) {
  kernels::apply(tensors_.operands(s), pool_);
}

}  // namespace orrery::host
