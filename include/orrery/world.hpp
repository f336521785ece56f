// Worlds: the ranks that run together, opened as MPI processes, over a communicator of NCCL, as threads of this
// process, or over a transport of the caller's (transport.hpp). A world knows who is there, lets the ranks agree on
// small things, and owns the link that carries their slices. Every wait of a world has a deadline. A world is used by
// one thread at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "orrery/device.hpp"
#include "orrery/error.hpp"
#include "orrery/topology.hpp"

namespace orrery {

class Ledger;      // src/core/ledger.hpp
class Link;        // src/link/link.hpp
class StreamLink;  // src/link/stream_link.hpp

struct WorldOptions {
  double timeout_seconds = 300;  // the longest a rank waits for another
  // What carries slices between devices of different processes: nccl, mpi (or another transport's name: staged through
  // host memory), or auto: nccl where this build has it.
  std::string device_link = "auto";
  // Asked about every 50 ms while a rank waits for another: true ends the wait with ErrorCode::interrupted, after which
  // the world is good for nothing but closing. May be empty. It returns at once, calls nothing of Orrery, and where
  // ranks are threads is asked by all of them.
  std::function<bool()> interrupted = {};
};

enum class Reduction { sum, max };

// What the ranks of a world gave, by rank. Copies share the bytes.
class Records {
 public:
  using Bytes = std::vector<std::byte>;

  Records(std::vector<Bytes> records) : records_(std::make_shared<const std::vector<Bytes>>(std::move(records))) {}
  explicit Records(std::shared_ptr<const std::vector<Bytes>> shared) : records_(std::move(shared)) {}

  std::size_t size() const { return records_->size(); }
  const Bytes& operator[](std::size_t rank) const { return (*records_)[rank]; }
  auto begin() const { return records_->begin(); }
  auto end() const { return records_->end(); }

 private:
  std::shared_ptr<const std::vector<Bytes>> records_;
};

class World {
 public:
  World();
  virtual ~World();

  virtual int rank() const = 0;
  virtual const Topology& topology() const = 0;
  int world_size() const { return topology().world_size; }
  virtual double timeout_seconds() const = 0;
  virtual std::string_view link_name()
      const = 0;  // "mpi", "nccl", "inprocess" or the name of a transport; ends in a zero

  // Every rank gives some bytes, sizes may differ, and gets those of all ranks, by rank. Meant for small records.
  // Throws ErrorCode::peer when the deadline passes, naming a rank that did not come; NCCL cannot tell which that is.
  virtual Records all_gather(std::span<const std::byte> mine) = 0;
  void barrier() { all_gather({}); }
  // values[i] becomes the sum, or the largest, of values[i] of all ranks, which give equally many; sums go in the order
  // of the ranks. What a rank gets does not grow with their number, other than over NCCL. Throws as all_gather() does.
  virtual void all_reduce(std::span<double> values, Reduction reduction);

  // Between the memories of hosts; refused where the world is NCCL's.
  virtual Link& link() = 0;
  // The link between devices, of which the given one is this rank's, with at least so many lanes open. Collective, with
  // the same number on all ranks, the first time and whenever the number is larger than before; the device is the same
  // every time. Throws ErrorCode::invalid in a build without CUDA.
  virtual StreamLink& stream_link(Device device, int lanes) = 0;

  // Tells the other ranks that this one cannot go on. What happens depends on the world:
  //   MPI        prints the message, ends every rank of the job with this exit code, and does not return
  //   transport  calls Transport::abort, and returns when that does
  //   threads    wakes all waits of all ranks with an error; prints nothing, and returns
  //   NCCL       aborts this rank's communicators, which the others learn from NCCL or from their deadline; prints
  //              nothing, and returns
  virtual void abort(ErrorCode code, std::string_view message) noexcept = 0;

  // What the runs on this world left in this rank's memory.
  Ledger& ledger() { return *ledger_; }

 private:
  std::unique_ptr<Ledger> ledger_;
};

// The all_gather of one value or one text a rank.
std::vector<double> all_gather(World& world, double mine);
std::vector<std::string> all_gather(World& world, const std::string& mine);

// Each rank calls this with the error it met, or with nothing, and gets that of the lowest rank that met one.
struct AgreedError {
  Error error;
  int rank = 0;
  bool of_all = false;  // all ranks met it, word by word
};
std::optional<AgreedError> agree_on_error(World& world, const Error* mine);
// The same, throwing it: with its code, and its message behind "rank R: ".
void agree_no_error(World& world, const Error* mine);
// Calls `body` on this rank and agrees on how it went. What it throws that is no Error becomes one.
void all_or_none(World& world, const std::function<void()>& body);

// True when this process was started by an MPI launcher (mpirun, srun) as one of its ranks.
bool started_by_mpi();

// Opens the world of all MPI processes, on a duplicate communicator; initialises MPI when nobody has, and then
// finalises it when the world is closed. Throws ErrorCode::invalid in a build without MPI.
std::unique_ptr<World> open_mpi_world(const WorldOptions& options);

// The same of the processes of a caller's communicator: `communicator` points to an MPI_Comm, which is duplicated and
// stays the caller's; null stands for all processes. Collective over them. MPI has at least MPI_THREAD_SERIALIZED, and
// MPI_THREAD_MULTIPLE where this process uses MPI, or another world, while a run is under way. The world is closed
// before MPI is finalised.
std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options);

// Opens the world of the ranks of a caller's ncclComm_t, which needs no MPI; all tensors lie on CUDA devices, and
// `device` is the one that the communicator has in this process. Collective. The communicator is split here, while
// nothing else may be under way on it, and neither used nor freed afterwards. Throws ErrorCode::invalid in a build
// without NCCL, ErrorCode::peer when not every rank comes within the timeout.
std::unique_ptr<World> open_nccl_world(void* communicator, Device device, const WorldOptions& options);

// The ranks of one process as handles, for a caller that brings the threads.
class LocalWorlds {
 public:
  LocalWorlds(int world_size, const WorldOptions& options);

  int world_size() const;
  // The world of a rank, once. Destroying it tells the others that the rank will not come to anything again. It may
  // outlive this object. Called by any thread, by several at once too.
  std::unique_ptr<World> open(int rank);
  // Opens the worlds of all ranks, runs `body` on each in a thread of its own and returns when all have; throws the
  // error of the rank that failed first.
  void run(const std::function<void(World&)>& body);

 private:
  struct Shared;
  void run_rank(int rank, const std::function<void(World&)>& body);
  std::shared_ptr<Shared> shared_;
};

// LocalWorlds::run of a world that nobody needs afterwards.
void run_in_process(int world_size, const WorldOptions& options, const std::function<void(World&)>& body);

}  // namespace orrery
