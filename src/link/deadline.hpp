// Time as the links see it: seconds of the steady clock, and the moment after which a wait has been too long.
#pragma once

#include <algorithm>
#include <chrono>

namespace orrery {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Deadline {
 public:
  // Thirty years stand for "never", so that no arithmetic on the clock overflows.
  explicit Deadline(double seconds)
      : at_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                   std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e9)))) {}

  std::chrono::steady_clock::time_point at() const { return at_; }
  bool passed() const { return std::chrono::steady_clock::now() >= at_; }

 private:
  std::chrono::steady_clock::time_point at_;
};

}  // namespace orrery
