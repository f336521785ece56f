#include "orrery/executor.hpp"

namespace orrery {

void Executor::run() {
  try {
    backend_.begin_run();
    for (int step = 0; step < static_cast<int>(program_.steps.size()); ++step) backend_.issue(step);
    backend_.end_run();
  } catch (...) {
    backend_.abandon_run();
    throw;
  }
}

}  // namespace orrery
