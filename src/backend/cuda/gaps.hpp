// Rows of key-values in the workspace that an attend reads though nobody has written them. A schedule transfers only
// the rows that somebody sees; the rest of a block are gaps, masked for every query. Kernels for tiles multiply what is
// masked by zero instead of leaving it out, so gaps must hold finite numbers.
#pragma once

#include <vector>

#include "orrery/schedule.hpp"

namespace orrery::cuda {

// Disjoint; to be cleared before the program runs.
std::vector<Slice> gaps(const RankProgram& program);

}  // namespace orrery::cuda
