#include "orrery/executor.hpp"

#include "orrery/error.hpp"

namespace orrery {

bool Executor::advance() {
  if (next_ >= static_cast<int>(program_.steps.size())) return false;
  backend_.issue(next_);
  ++next_;
  return true;
}

void Executor::run() {
  next_ = 0;
  try {
    backend_.begin_run();
    while (advance()) {
    }
    backend_.end_run();
  } catch (...) {
    backend_.abandon_run();
    throw;
  }
}

}  // namespace orrery
