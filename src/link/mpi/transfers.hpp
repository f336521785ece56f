// The transfers of one session: persistent requests made once, started and tested by the progress thread. The caller's
// thread touches only what is atomic, what the mutex guards, and, while the progress thread does not serve, the rest.
//
// At the beginning of a run each rank sends the name of the run to every rank that it sends messages to. Nothing is
// received from a peer before its name has come and is the same: MPI might write a longer message past the end of a
// buffer, and what fits but belongs to another run is worse.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <vector>

#include "link/deadline.hpp"
#include "link/link.hpp"
#include "link/mpi/handles.hpp"
#include "link/mpi/pieces.hpp"
#include "link/mpi/progress_thread.hpp"
#include "link/outstanding.hpp"
#include "link/posting_order.hpp"

namespace orrery {

class Transfers final : public ProgressWork {
 public:
  Transfers(MPI_Comm comm, int rank, const std::vector<LinkExchange>& exchanges, std::int64_t piece_bytes);

  // While the progress thread does not serve.
  void begin_run(const RunName& run);
  bool in_flight() const { return active_count_ > 0; }
  // What holds up this exchange: what of it is in flight, or of an earlier one that it waits for.
  std::vector<Outstanding> outstanding(int exchange) const;
  void forget() { requests_.forget(); }

  // By the caller, while it does.
  int started() const { return started_.load(std::memory_order_relaxed); }
  void start() { started_.fetch_add(1, std::memory_order_release); }
  bool done(int exchange) const { return done_[exchange].load(std::memory_order_acquire); }
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  [[noreturn]] void rethrow() const;
  ExchangeTimes times(int exchange) const { return times_[exchange]; }  // once it is done
  // Returns when the exchange is done, or the link has failed, or the deadline has passed; throws when interrupted.
  void sleep_until_done(int exchange, const Deadline& deadline);

  State poll() override;
  void fail(std::exception_ptr error) noexcept override;

 private:
  struct Request {
    int exchange = 0;
    int peer = 0;
    bool receive = false;
    std::int64_t bytes = 0;
    bool started = false, complete = false;
    Piece piece;
    int source = -1;  // of a receive: among the sources
  };
  // Who sends something to this rank in a run.
  struct Source {
    int rank = 0;
    RunName name;  // of its run
    bool known = false;
    std::vector<int> receives;  // of its messages, in order: the first request of each exchange
  };
  void add(MPI_Comm comm, const LinkExchange& exchange, int index, std::int64_t piece_bytes);
  void add_names(MPI_Comm comm);
  int add_source(int rank);
  void start(int first, int end);
  void post(int exchange);
  void receive(const Source& source, int first);
  void meet(Source& source);
  void finish(int request, const MPI_Status& status);
  void complete(int exchange);
  [[noreturn]] void wrong_size(const Request& request, const MPI_Status& status, bool truncated) const;

  const int rank_;
  PersistentRequests requests_;     // those of the exchanges, then those of the names
  std::vector<Request> described_;  // by request
  std::vector<int> first_request_;  // by exchange, with one more at the end: the first of the names
  std::vector<int> first_receive_;  // by exchange, whose sends stand before its receives
  RunName run_;
  std::vector<Source> sources_;  // whose names are received, by the first requests of the names
  bool names_begun_ = false;
  std::vector<int> lane_;
  PostingOrder order_;
  std::vector<int> unfinished_;  // requests, by exchange
  std::vector<ExchangeTimes> times_;

  // The requests in flight, packed so that a poll looks at no other.
  int active_count_ = 0;
  std::vector<MPI_Request> active_;
  std::vector<int> active_request_;
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;

  std::atomic<int> started_ = 0;
  std::vector<std::atomic<bool>> done_;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;
  std::mutex mutex_;  // for the sleep of the caller
  std::condition_variable changed_;
};

}  // namespace orrery
