// Which attends of a program can begin and finish their rows themselves. A program clears a state, folds blocks into it
// and divides it at the end; on a device each of these is a pass over memory. Where the attends that touch a cleared
// state first cover it exactly, they need not read it and it need not be cleared; where those that touch it last cover
// exactly what is normalized, they write out and lse themselves. The program stays as it is: this is only a note beside
// its steps.
#pragma once

#include <vector>

#include "orrery/schedule.hpp"

namespace orrery::cuda {

struct StepFusion {
  bool skipped = false;  // a clear or normalize that its attends have taken over
  int clear = -1;      // of an attend that begins its rows, whose state need not exist yet: the step it has taken over
  int normalize = -1;  // of an attend that finishes its rows: the step it has taken over
  Slice output = {};   // and where these rows' out and lse are
};

std::vector<StepFusion> fuse(const RankProgram& program);

}  // namespace orrery::cuda
