// The executor advances one rank through its program on a backend. There is only this one: running and tracing differ
// in the backend alone. What takes the programs of all ranks in one thread is the walk (executor/walk).
#pragma once

#include "orrery/backend.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

class Executor {
 public:
  Executor(const RankProgram& program, Backend& backend) : program_(program), backend_(backend) {}

  // begin_run, every step, end_run; abandon_run when one throws.
  void run();

 private:
  const RankProgram& program_;
  Backend& backend_;
};

}  // namespace orrery
