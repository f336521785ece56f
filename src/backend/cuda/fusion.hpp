// Which steps of a program do the work of others beside their own. A program clears what it adds to, adds block after
// block, and divides or rounds the sums at the end; on a device each of these is a pass over memory.
//
// Where the attends that touch cleared rows first cover them exactly, they need not read them, and these need not be
// cleared; where those that touch them last cover exactly what is normalized or copied, they write the results
// themselves. The rows are those that a block owns alone: a state forward, the gradients of keys backward. The gradient
// of the queries, to which all add, is cleared by the step that finds delta, which passes over rows of the same shape.
//
// The program stays as it is: this is only a note beside its steps.
#pragma once

#include <vector>

#include "orrery/schedule.hpp"

namespace orrery::cuda {

struct StepFusion {
  bool skipped = false;  // a clear, normalize or copy that others have taken over
  int clear = -1;        // of an attend that begins its rows, which need hold nothing yet, or of a delta that clears
                         // other rows: the step it has taken over
  int finish = -1;       // of an attend that finishes its rows: the normalize or copy it has taken over
  Slice output = {};     // and where the results of these rows are
};

std::vector<StepFusion> fuse(const RankProgram& program);

}  // namespace orrery::cuda
