#include "link/mpi/mpi_transport.hpp"

#include <sched.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

#include "link/mpi/mpi_messages.hpp"
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

}  // namespace

MpiTransport::MpiTransport(const void* communicator, double timeout_seconds, const Interrupted& interrupted,
                           std::int64_t piece_bytes)
    : initialised_here_(initialise()),
      piece_bytes_(piece_bytes),
      comm_(duplicate_of(callers(communicator), timeout_seconds, interrupted)),
      rank_(rank_in(comm_.get())),
      world_size_(size_of(comm_.get())) {}

bool MpiTransport::open() const {
  int finalised = 0;
  MPI_Finalized(&finalised);
  return finalised == 0;
}

std::unique_ptr<PreparedMessages> MpiTransport::prepare(std::vector<TransportMessage> messages) {
  return std::make_unique<MpiMessages>(comm_.get(), messages, piece_bytes_);
}

void MpiTransport::abort(ErrorCode code, std::string_view message) noexcept {
  // An error from inside a run says itself where it was.
  const std::string who = message.starts_with("[rank ") ? "" : concat("rank ", rank_, ": ");
  std::fprintf(stderr, "orrery: %s%.*s\n", who.c_str(), static_cast<int>(message.size()), message.data());
  const int status = static_cast<int>(code);
  try {
    const ExitGuard guard("MPI_Abort", rank_, kAbortSeconds, code);
    MPI_Abort(comm_.get(), status);
  } catch (const std::system_error&) {  // no thread for the guard
  }
  std::_Exit(status);
}

void MpiTransport::finalise(double timeout_seconds) {
  const ExitGuard guard("MPI_Finalize", rank_, timeout_seconds, ErrorCode::peer);
  comm_ = Communicator();
  MPI_Finalize();
}

}  // namespace orrery
