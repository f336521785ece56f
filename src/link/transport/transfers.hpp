// The transfers of one session over a transport: messages prepared once, posted and polled by the progress thread. The
// caller's thread touches only what is atomic, what the mutex guards, and, while the progress thread does not serve,
// the rest.
//
// At the beginning of a run each rank sends the name of the run to every rank that it sends messages to. Nothing is
// received from a peer before its name has come and is the same: a transport might write a longer message past the end
// of a buffer, and what fits but belongs to another run is worse.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "link/deadline.hpp"
#include "link/link.hpp"
#include "link/outstanding.hpp"
#include "link/posting_order.hpp"
#include "link/transport/progress_thread.hpp"

namespace orrery {

class Transfers final : public ProgressWork {
 public:
  Transfers(Transport& transport, const std::vector<LinkExchange>& exchanges);

  // While the progress thread does not serve.
  void begin_run(const RunName& run);
  bool in_flight() const { return under_way_ > 0; }
  // What holds up this exchange: what of it is in flight, or of an earlier one that it waits for.
  std::vector<Outstanding> outstanding(int exchange) const;

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
  struct Entry {  // a message, by its number
    int exchange = 0;
    int peer = 0;
    bool receive = false;
    int source = -1;  // of a receive: among the sources
    Region region;
    std::vector<std::byte> packed = {};  // what the transport sees of it, where that is not the region itself
    bool complete = false;
  };
  // Who sends something to this rank in a run.
  struct Source {
    int rank = 0;
    RunName name;  // of its run
    bool known = false;
    std::vector<int> receives;  // the messages from it, in order
  };
  void add(const LinkExchange& exchange, int index);
  void add_names();
  int add_source(int rank);
  void post(int exchange);
  void post_gathered();
  void meet(Source& source);
  void finish(int message);
  void complete(int exchange);

  const int rank_;
  std::vector<Entry> entries_;      // those of the exchanges, then those of the names
  std::vector<int> first_message_;  // by exchange, with one more at the end: the first of the names
  RunName run_;
  std::vector<Source> sources_;  // whose names are received, by the first messages of the names
  bool names_begun_ = false;
  std::vector<int> lane_;
  PostingOrder order_;
  std::vector<int> unfinished_;  // messages, by exchange
  std::vector<ExchangeTimes> times_;
  int under_way_ = 0;
  std::vector<int> gathered_, finished_;  // room for all messages: those to be posted together; those that poll() tells
  std::unique_ptr<PreparedMessages> messages_;

  std::atomic<int> started_ = 0;
  std::vector<std::atomic<bool>> done_;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;
  std::mutex mutex_;  // for the sleep of the caller
  std::condition_variable changed_;
};

}  // namespace orrery
