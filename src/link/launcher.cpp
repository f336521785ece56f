#include "orrery/launcher.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "orrery/world.hpp"

namespace orrery {
namespace {

// A number of an environment variable; nothing when it is not there or is no number from 0 on.
std::optional<int> number(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const char* end = text + std::strlen(text);
  int value = 0;
  const auto [stop, fault] = std::from_chars(text, end, value);
  if (fault != std::errc() || stop != end || value < 0) return std::nullopt;
  return value;
}

// The variable that holds how many tasks the step of this process has, if it is a task of a step. An allocation leaves
// SLURM_NTASKS to its shell, as SLURM_PROCID 0 and without the number of a step.
const char* slurm_ranks() {
  if (number("SLURM_STEP_NUM_TASKS")) return "SLURM_STEP_NUM_TASKS";
  const bool in_step = number("SLURM_STEP_ID") || number("SLURM_STEPID") || number("SLURM_PROCID").value_or(0) > 0;
  return in_step ? "SLURM_NTASKS" : "";
}

}  // namespace

std::optional<Launcher> launcher() {
  constexpr const char* kOwnMpirun = "use the mpirun of the MPI that Orrery was built with, or srun --mpi=pmix";
  // The nearest first: mpirun and torchrun also run inside a step of Slurm.
  const struct {
    const char *name, *ranks, *rank, *remedy;
  } kinds[] = {
      {"Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", kOwnMpirun},
      {"the launcher with PMI (MPICH's or Intel's mpiexec, srun --mpi=pmi2)", "PMI_SIZE", "PMI_RANK", kOwnMpirun},
      {"torchrun", "WORLD_SIZE", "RANK", "torchrun starts no MPI: use mpirun, or srun --mpi=pmix"},
      {"srun", slurm_ranks(), "SLURM_PROCID",
       "give srun --mpi=pmix (srun --mpi=list says what it has), or use mpirun inside the allocation"},
  };
  for (const auto& [name, ranks_name, rank_name, remedy] : kinds) {
    const std::optional<int> ranks = number(ranks_name), rank = number(rank_name);
    if (ranks && rank) return Launcher{name, ranks_name, *ranks, *rank, remedy};
  }
  return std::nullopt;
}

std::optional<int> launcher_local_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}) {
    if (const auto rank = number(variable)) return rank;
  }
  return std::nullopt;
}

bool started_by_mpi() {
  // Open MPI's mpirun; srun or MPICH with PMI; anything with PMIx.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace orrery
