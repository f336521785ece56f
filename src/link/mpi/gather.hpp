// all_gather with a deadline. MPI's own collectives cannot say who did not come; here all records pass through rank 0,
// which waits for each rank by name. The other ranks wait a little longer than rank 0, so that the one that can name
// the culprit speaks first.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace orrery {

class Gather {
 public:
  Gather(MPI_Comm comm, int rank, int world_size);
  ~Gather();
  std::vector<std::vector<std::byte>> operator()(std::span<const std::byte> mine, double timeout_seconds);
  bool broken() const { return !abandoned_.empty(); }

 private:
  struct Round;
  MPI_Comm comm_;
  int rank_, world_size_;
  // Rounds that missed their deadline: MPI may still write to their memory, so it is kept.
  std::vector<std::unique_ptr<Round>> abandoned_;
};

}  // namespace orrery
