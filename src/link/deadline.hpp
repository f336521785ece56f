// Time as the links see it: seconds of the steady clock, and the moment after which a wait has been too long. A wait
// for another rank also asks the caller's hook, now and then, whether it is to go on.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>

#include "orrery/error.hpp"

namespace orrery {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// WorldOptions::interrupted; may be empty.
using Interrupted = std::function<bool()>;

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  // Thirty years stand for "never", so that no arithmetic on the clock overflows. The hook outlives this.
  explicit Deadline(double seconds, const Interrupted* interrupted = nullptr)
      : at_(Clock::now() +
            std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e9)))),
        interrupted_(interrupted != nullptr && *interrupted ? interrupted : nullptr),
        asks_at_(Clock::now()) {}

  // Throws ErrorCode::interrupted when the hook says so.
  bool passed() const {
    const Clock::time_point now = Clock::now();
    if (interrupted_ != nullptr && now >= asks_at_) {
      asks_at_ = now + kAsks;
      if ((*interrupted_)()) fail(ErrorCode::interrupted, "a wait for other ranks was interrupted");
    }
    return now >= at_;
  }
  // When passed() is to be called again.
  Clock::time_point at() const { return interrupted_ == nullptr ? at_ : std::min(at_, asks_at_); }

 private:
  static constexpr std::chrono::milliseconds kAsks{50};

  Clock::time_point at_;
  const Interrupted* interrupted_;
  mutable Clock::time_point asks_at_;
};

}  // namespace orrery
