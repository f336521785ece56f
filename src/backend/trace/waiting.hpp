// Exposed communication: time in which computation had nothing to do but wait. It lies between the end of one computing
// step and the beginning of the next, as far as the next had been issued, and between the last one and the end of the
// last transfer. And it is the time for which the thread that computes was kept by starting an exchange: over threads a
// start makes the copies for which it came last.
#pragma once

#include <algorithm>

#include "orrery/trace.hpp"

namespace orrery::trace {

// Seconds from the beginning of the run.
struct Interval {
  double began = 0, ended = 0;

  double seconds() const { return std::max(0.0, ended - began); }
};

// Takes the steps of a pass in program order.
class Waiting {
 public:
  // The wait before a step that computes.
  Interval computed(const StepTimes& t) {
    const Interval wait{std::max(t.issued, computed_until_), t.began};
    computed_until_ = t.ended;
    return wait;
  }
  // The start of an exchange.
  Interval moved(const StepTimes& t) {
    moved_until_ = std::max(moved_until_, t.ended);
    if (t.held <= 0) return {};
    computed_until_ = std::max(computed_until_, t.issued + t.held);
    return {t.issued, t.issued + t.held};
  }
  Interval after_all() const { return {computed_until_, moved_until_}; }

 private:
  double computed_until_ = 0, moved_until_ = 0;  // where computation could go on; where transfers ended
};

}  // namespace orrery::trace
