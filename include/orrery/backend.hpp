// Backends give steps their effect on memory, of hosts or of devices. A backend is made for one rank's
// program and may run it many times.
#pragma once

#include "orrery/trace.hpp"

namespace orrery {

class Backend {
 public:
  virtual ~Backend() = default;

  virtual void begin_run() = 0;
  // Issues a step, in program order. It takes effect once all steps it depends on have; issue() may return before that.
  virtual void issue(int step) = 0;
  // Returns when every issued step is complete.
  virtual void end_run() = 0;
  // Called instead of end_run() after an error.
  virtual void abandon_run() noexcept = 0;
  // When the last run began: seconds on the steady clock of this host.
  virtual double began() const = 0;
  // Of the last run; issued is not the backend's to know.
  virtual StepTimes times(int step) const = 0;
};

}  // namespace orrery
