// The world of the processes of an MPI communicator. MPI never reports a peer that died or hangs, so nothing here calls
// an MPI function that waits, but for MPI_Init and MPI_Finalize: the rest is started, polled, and given up at a
// deadline. The last resort is abort(), which must end this process even where MPI_Abort itself hangs on a dead link.
#include "link/mpi/mpi_world.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "link/deadline.hpp"
#include "link/mpi/gather.hpp"
#include "link/mpi/handles.hpp"
#include "link/mpi/mpi_link.hpp"
#include "link/mpi/pieces.hpp"
#include "link/mpi/stream_open.hpp"
#include "link/outstanding.hpp"

namespace orrery {
namespace {

constexpr double kAbortSeconds = 2;

// Ends the process, with a line on stderr and a code, when what stands between its construction and its destruction
// takes longer than it may.
class ExitGuard {
 public:
  ExitGuard(const char* what, int rank, double seconds, ErrorCode code)
      : complaint_(concat("orrery: rank ", rank, ": ", what, " did not return within ", seconds_text(seconds), " s\n")),
        thread_([=, this] {
          std::unique_lock lock(mutex_);
          if (changed_.wait_until(lock, Deadline(seconds).at(), [this] { return disarmed_; })) return;
          std::fputs(complaint_.c_str(), stderr);
          std::_Exit(static_cast<int>(code));
        }) {}
  ~ExitGuard() {
    {
      const std::lock_guard lock(mutex_);
      disarmed_ = true;
      changed_.notify_one();
    }
    thread_.join();
  }
  ExitGuard(const ExitGuard&) = delete;
  ExitGuard& operator=(const ExitGuard&) = delete;

 private:
  std::string complaint_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool disarmed_ = false;
  std::thread thread_;
};

// Returns whether it was this call that initialised MPI.
bool initialise() {
  int initialised = 0, finalised = 0, threads = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (finalised != 0) refuse("MPI is finalised already: a process opens its MPI world once");
  if (initialised == 0) {
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &threads), "MPI_Init_thread");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  } else {
    check_mpi(MPI_Query_thread(&threads), "MPI_Query_thread");
  }
  if (threads < MPI_THREAD_SERIALIZED) {
    refuse("MPI was initialised with thread level ", threads, "; Orrery needs MPI_THREAD_SERIALIZED (",
           MPI_THREAD_SERIALIZED, ") for the thread that drives its transfers");
  }
  return initialised == 0;
}

// What the caller's pointer says, once MPI is there.
MPI_Comm callers(const void* communicator) {
  if (communicator == nullptr) return MPI_COMM_WORLD;
  const MPI_Comm theirs = *static_cast<const MPI_Comm*>(communicator);
  if (theirs == MPI_COMM_NULL) refuse("the communicator is MPI_COMM_NULL");
  int inter = 0;
  check_mpi(MPI_Comm_test_inter(theirs, &inter), "MPI_Comm_test_inter");
  if (inter != 0) refuse("the communicator joins two groups; a world has one");
  return theirs;
}

Communicator duplicate_of(MPI_Comm theirs, double timeout_seconds, const Interrupted& interrupted) {
  const Deadline deadline(timeout_seconds, &interrupted);
  MPI_Comm copy = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Comm_idup(theirs, &copy, &request), "MPI_Comm_idup");
  for (int done = 0; done == 0;) {
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0) break;
    if (deadline.passed()) {
      fail(ErrorCode::peer, "not every rank opened the world within ", seconds_text(timeout_seconds), " s");
    }
    sched_yield();
  }
  check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return Communicator(copy);
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

// Cores that this process may run on; one, when the launcher bound it to one.
int usable_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

std::string host_name() {
  char name[MPI_MAX_PROCESSOR_NAME];
  int length = 0;
  check_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  return std::string(name, length);
}

class MpiWorld final : public World {
 public:
  MpiWorld(const void* communicator, const WorldOptions& options, std::int64_t piece_bytes)
      : timeout_seconds_(options.timeout_seconds),
        device_link_(options.device_link),
        interrupted_(options.interrupted),
        initialised_here_(initialise()),
        comm_(duplicate_of(callers(communicator), timeout_seconds_, interrupted_)),
        rank_(rank_in(comm_.get())),
        gather_(comm_.get(), rank_, size_of(comm_.get()), &interrupted_),
        link_(comm_.get(), rank_, size_of(comm_.get()), piece_bytes, &interrupted_) {
    topology_ = Topology::from_hosts(orrery::all_gather(*this, host_name()));
    const auto& nodes = topology_.node_of_rank;
    const auto ranks_here = std::count(nodes.begin(), nodes.end(), nodes[static_cast<std::size_t>(rank_)]);
    link_.thread().core_to_spare(usable_cores() >= 2 * ranks_here);
  }
  ~MpiWorld() override {
    stream_link_.reset();  // while MPI is still there
    close();
  }

  int rank() const override { return rank_; }
  const Topology& topology() const override { return topology_; }
  double timeout_seconds() const override { return timeout_seconds_; }
  std::string_view link_name() const override { return "mpi"; }
  Link& link() override { return link_; }
  StreamLink& stream_link(Device device, int lanes) override {
    if (!stream_link_) {
      stream_link_ = open_mpi_stream_link(*this, link_, device_link_, device, lanes);
      stream_device_ = device;
    }
    if (device != stream_device_) {
      refuse("rank ", rank_, " asks for a link of device ", device.index, "; it has one of device ",
             stream_device_.index);
    }
    stream_link_->open_lanes(lanes);
    return *stream_link_;
  }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    ORRERY_CHECK(!link_.thread().serving(), "all_gather while a run is under way");
    return gather_(mine, timeout_seconds_);
  }
  void all_reduce(std::span<double> values, Reduction reduction) override {
    ORRERY_CHECK(!link_.thread().serving(), "all_reduce while a run is under way");
    gather_.all_reduce(values, reduction, timeout_seconds_);
  }

  void abort(ErrorCode code, std::string_view message) noexcept override {
    // An error from inside a run says itself where it was.
    const std::string who = message.starts_with("[rank ") ? "" : concat("rank ", rank_, ": ");
    std::fprintf(stderr, "orrery: %s%.*s\n", who.c_str(), static_cast<int>(message.size()), message.data());
    const int status = static_cast<int>(code);
    try {
      const ExitGuard guard("MPI_Abort", rank_, kAbortSeconds, code);
      link_.quiesce();
      MPI_Abort(comm_.get(), status);
    } catch (const std::system_error&) {  // no thread for the guard
    }
    std::_Exit(status);
  }

 private:
  void close() noexcept;

  double timeout_seconds_;
  std::string device_link_;
  Interrupted interrupted_;
  int exceptions_at_open_ = std::uncaught_exceptions();
  bool initialised_here_;
  Communicator comm_;
  int rank_;
  Topology topology_;
  Gather gather_;
  MpiLink link_;
  std::unique_ptr<StreamLink> stream_link_;
  Device stream_device_;
};

// MPI_Finalize waits for all ranks. A world that closes in good order waits for them itself first, by name and with a
// deadline; one that closes because of an error does not call MPI any more, and the launcher ends the job.
void MpiWorld::close() noexcept {
  int finalised = 0;  // by a caller who was too early; then nothing of MPI may be touched
  MPI_Finalized(&finalised);
  if (finalised != 0 || link_.broken() || gather_.broken() || std::uncaught_exceptions() > exceptions_at_open_) {
    comm_.forget();
    return;
  }
  if (!initialised_here_) return;
  try {
    barrier();
    const ExitGuard guard("MPI_Finalize", rank_, timeout_seconds_, ErrorCode::peer);
    comm_ = Communicator();
    MPI_Finalize();
  } catch (const std::system_error& error) {
    abort(ErrorCode::resource, concat("cannot start the thread that guards MPI_Finalize: ", error.what()));
  } catch (const std::exception& error) {
    abort(ErrorCode::peer, concat("while closing the world: ", error.what()));
  }
}

}  // namespace

std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options, std::int64_t piece_bytes) {
  if (!(options.timeout_seconds > 0)) refuse("a timeout of ", options.timeout_seconds, " seconds");
  const std::string& kind = options.device_link;
  if (kind != "auto" && kind != "nccl" && kind != "mpi") {
    refuse("a device link \"", kind, "\": between processes there are auto, nccl and mpi");
  }
  return std::make_unique<MpiWorld>(communicator, options, piece_bytes);
}

std::unique_ptr<World> open_mpi_world(const void* communicator, const WorldOptions& options) {
  return open_mpi_world(communicator, options, kMpiPieceBytes);
}

std::unique_ptr<World> open_mpi_world(const WorldOptions& options) {
  return open_mpi_world(nullptr, options);
}

}  // namespace orrery
