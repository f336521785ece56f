// What started this process, as far as its environment tells. A launcher starts one process a rank and leaves each its
// number and how many there are; whether MPI learns of them too is another matter, for a launcher may belong to another
// MPI or to none. Then every process takes itself for a world of one.
#pragma once

#include <optional>
#include <string_view>

namespace orrery {

struct Launcher {
  std::string_view name;          // "mpirun of Open MPI", "srun", ...
  std::string_view ranks_source;  // the variable that says how many ranks there are
  int ranks = 1, rank = 0;
  std::string_view remedy;  // how to start ranks that MPI knows of
};

// The nearest launcher; nothing where no variable of one is set. A batch script or an interactive shell of Slurm is no
// rank: only the tasks of a step are.
std::optional<Launcher> launcher();

// The number of this process among those of its launcher on this host.
std::optional<int> launcher_local_rank();

}  // namespace orrery
