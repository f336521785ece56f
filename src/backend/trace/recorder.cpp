#include "backend/trace/recorder.hpp"

#include <algorithm>
#include <chrono>

namespace orrery::trace {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Recorder::Recorder(const AttentionProblem& problem, const RankProgram& program, Backend& inner)
    : problem_(problem), program_(program), inner_(inner), issued_(program.steps.size(), 0) {}

void Recorder::begin_run() {
  began_ = now();
  inner_.begin_run();
}

void Recorder::issue(int step) {
  issued_[static_cast<std::size_t>(step)] = now() - began_;
  inner_.issue(step);
}

void Recorder::end_run() {
  inner_.end_run();
  seconds_ = now() - began_;
}

StepTimes Recorder::times(int step) const {
  StepTimes times = inner_.times(step);
  times.issued = issued_[static_cast<std::size_t>(step)];
  return times;
}

// Exposed communication is time in which computation had nothing to do but wait: between the end of one computing step
// and the beginning of the next, as far as the next had been issued, and after the last.
Timeline Recorder::timeline(bool with_steps) const {
  Timeline timeline{program_.rank, program_.pass, seconds_, 0, 0, {}};
  double computed_until = 0, moved_until = 0;
  for (int i = 0; i < static_cast<int>(program_.steps.size()); ++i) {
    const Step& step = program_.steps[static_cast<std::size_t>(i)];
    const StepTimes t = times(i);
    const auto* exchange = std::get_if<Exchange>(&step);
    if (exchange == nullptr) {
      timeline.compute_seconds += t.ended - t.began;
      timeline.exposed_comm_seconds += std::max(0.0, t.began - std::max(t.issued, computed_until));
      computed_until = t.ended;
    } else {
      moved_until = std::max(moved_until, t.ended);
    }
    if (!with_steps) continue;
    std::int64_t bytes = 0;
    if (exchange != nullptr) {
      for (const Transfer& send : exchange->sends) {
        bytes += send.slice.tokens * send.slice.heads *
                 row_bytes(program_.buffers[static_cast<std::size_t>(send.slice.buffer)], problem_);
      }
    }
    timeline.steps.push_back(
        {std::string(name_of(step)), to_text(program_, i), exchange ? exchange->lane : -1, t, bytes});
  }
  timeline.exposed_comm_seconds += std::max(0.0, moved_until - computed_until);
  return timeline;
}

}  // namespace orrery::trace
