#include "backend/trace/recorder.hpp"

#include <chrono>

#include "backend/trace/waiting.hpp"

namespace orrery::trace {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Recorder::Recorder(const AttentionProblem& problem, const RankProgram& program, Backend& inner)
    : problem_(problem), program_(program), inner_(inner), issued_(program.steps.size(), 0) {}

void Recorder::begin_run() {
  inner_.begin_run();
}

void Recorder::issue(int step) {
  issued_[static_cast<std::size_t>(step)] = now() - inner_.began();
  inner_.issue(step);
}

void Recorder::end_run() {
  inner_.end_run();
  seconds_ = now() - inner_.began();
}

StepTimes Recorder::times(int step) const {
  StepTimes times = inner_.times(step);
  times.issued = issued_[static_cast<std::size_t>(step)];
  return times;
}

Timeline Recorder::timeline(bool with_steps) const {
  Timeline timeline;
  timeline.rank = program_.rank;
  timeline.pass = program_.pass;
  timeline.seconds = seconds_;
  timeline.began = inner_.began();
  Waiting waiting;
  for (int i = 0; i < static_cast<int>(program_.steps.size()); ++i) {
    const Step& step = program_.steps[static_cast<std::size_t>(i)];
    const StepTimes t = times(i);
    const auto* exchange = std::get_if<Exchange>(&step);
    if (exchange == nullptr) timeline.compute_seconds += t.ended - t.began;
    timeline.exposed_comm_seconds += (exchange == nullptr ? waiting.computed(t) : waiting.moved(t)).seconds();
    if (!with_steps) continue;
    TraceStep& traced = timeline.steps.emplace_back();
    traced.name = name_of(step);
    traced.text = to_text(program_, i);
    traced.times = t;
    if (exchange == nullptr) continue;
    const auto bytes_of = [&](const std::vector<Transfer>& transfers) {
      std::int64_t bytes = 0;
      for (const Transfer& transfer : transfers) {
        const Slice& s = transfer.slice;
        bytes += s.tokens * s.heads * row_bytes(program_.buffers[static_cast<std::size_t>(s.buffer)], problem_);
      }
      return bytes;
    };
    traced.lane = exchange->lane;
    traced.bytes = bytes_of(exchange->sends);
    traced.bytes_received = bytes_of(exchange->receives);
  }
  timeline.exposed_comm_seconds += waiting.after_all().seconds();
  return timeline;
}

}  // namespace orrery::trace
