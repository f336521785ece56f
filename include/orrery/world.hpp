// Worlds: the ranks that run together, opened as MPI processes or as threads of this process. A world knows who is
// there, lets the ranks agree on small things, and owns the link that carries their slices. Every wait of a world has a
// deadline.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/topology.hpp"

namespace orrery {

class Link;  // src/link/link.hpp

struct WorldOptions {
  double timeout_seconds = 300;  // the longest a rank waits for another
};

class World {
 public:
  virtual ~World() = default;

  virtual int rank() const = 0;
  virtual const Topology& topology() const = 0;
  int world_size() const { return topology().world_size; }
  virtual double timeout_seconds() const = 0;
  virtual std::string_view link_name() const = 0;  // "mpi" or "inprocess"

  // Every rank gives some bytes, sizes may differ, and gets those of all ranks, by rank. Meant for small records.
  // Throws ErrorCode::peer, naming a rank that did not come, when the deadline passes.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) = 0;
  void barrier() { all_gather({}); }

  virtual Link& link() = 0;

  // Ends every rank of the job with this exit code, after printing the message. Does not return where ranks are
  // processes; for ranks that are threads it wakes all their waits with an error and returns.
  virtual void abort(ErrorCode code, std::string_view message) noexcept = 0;
};

// The all_gather of one value or one text a rank.
std::vector<double> all_gather(World& world, double mine);
std::vector<std::string> all_gather(World& world, const std::string& mine);

// Each rank calls this with the error it met, or with nothing; when any rank met one, all ranks throw that of the
// lowest such rank, with its code, and its message behind "rank R: ".
void agree_no_error(World& world, const Error* mine);

// True when this process was started by an MPI launcher (mpirun, srun) as one of its ranks.
bool started_by_mpi();

// Opens the world of all MPI processes, on a duplicate communicator; initialises MPI when nobody has, and then
// finalises it when the world is closed. Throws ErrorCode::invalid in a build without MPI.
std::unique_ptr<World> open_mpi_world(const WorldOptions& options);

// Runs `body` on world_size ranks that are threads of this process and returns when all have; throws the error of the
// rank that failed first.
void run_in_process(int world_size, const WorldOptions& options, const std::function<void(World&)>& body);

}  // namespace orrery
