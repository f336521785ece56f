// The hub: what the ranks of one process share. One mutex guards it, and the channels and sessions of the link with it;
// no bytes of a message are copied while it is held. Each rank sleeps on a condition variable of its own.
//
// A failure is remembered once, the first one: it is the cause, and the errors of ranks that it woke are consequences.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "link/deadline.hpp"
#include "link/run_name.hpp"
#include "orrery/error.hpp"
#include "orrery/world.hpp"

namespace orrery {

class Hub {
 public:
  Hub(int world_size, double timeout_seconds, Interrupted interrupted);

  int world_size() const { return static_cast<int>(seats_.size()); }
  double timeout_seconds() const { return timeout_seconds_; }
  const Interrupted* interrupted() const { return &interrupted_; }

  std::mutex& mutex() { return mutex_; }
  // The caller of these holds the mutex.
  void set_run(int rank, const std::optional<RunName>& run);  // that a rank is in, or none
  const std::optional<RunName>& run(int rank) const { return seats_[rank].run; }
  std::condition_variable& wake(int rank) { return seats_[rank].wake; }
  bool has_left(int rank) const { return seats_[rank].left; }
  void throw_if_failed(int rank) const;  // the error itself on the rank that met it, ErrorCode::peer on the others
  void fail_locked(int rank, ErrorCode code, const std::string& message, std::exception_ptr cause = nullptr);

  // The caller of these does not hold it.
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void fail(int rank, ErrorCode code, const std::string& message, std::exception_ptr cause = nullptr);
  void leave(int rank);  // the rank has returned and will never come to anything again
  void rethrow_failure();
  Records all_gather(int rank, std::span<const std::byte> mine);
  void all_reduce(int rank, std::span<double> values, Reduction reduction);

 private:
  using Given = std::vector<std::vector<std::byte>>;  // by rank
  struct Seat {
    std::condition_variable wake;
    bool left = false;
    std::optional<RunName> run;
    bool arrived = false;  // at the present all_gather
    std::vector<std::byte> given;
  };
  struct Failure {
    int rank;
    ErrorCode code;
    std::string message;
    std::exception_ptr cause;
  };
  // The records of all ranks or, for a reduction, their result alone. One copy for all, read without the mutex.
  std::shared_ptr<const Given> gather(int rank, std::span<const std::byte> mine, std::optional<Reduction> reduction);
  Given take_records();
  std::vector<int> missing() const;
  std::vector<int> missing_for_good() const;
  void wake_all();

  const double timeout_seconds_;
  const Interrupted interrupted_;
  std::mutex mutex_;
  std::vector<Seat> seats_;
  std::atomic<bool> failed_ = false;
  Failure failure_;
  int arrivals_ = 0;
  long gathers_ = 0;         // complete ones
  long given_up_ = -1;       // the all_gather that ranks last gave up waiting in
  std::vector<int> absent_;  // and who was absent from it
  std::shared_ptr<const Given> gathered_;
};

}  // namespace orrery
