// How messages between ranks that are threads meet. A message needs no transport, only a meeting: a send and a receive
// meet in the channel of their pair and lane, in order, and whichever thread brought the second of the two has the
// bytes carried. When that completes an exchange on which others of the same rank wait, the same thread posts those on
// that rank's behalf, so a rank that computes does not hold anybody up.
//
// What carrying means is the carrier's: on the host a copy, done when carry() returns; on devices a copy put on a
// stream, whose order stands for the rest (device_link.cpp). An exchange is complete, here, when all its messages have
// been carried.
//
// Tickets, one a message, are made once and only linked and unlinked while a plan runs.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "link/inprocess/hub.hpp"
#include "link/link.hpp"
#include "link/outstanding.hpp"
#include "link/posting_order.hpp"

namespace orrery {

class Rendezvous;
struct Channel;

struct Ticket {
  enum class State { idle, queued, carried };

  Rendezvous* session = nullptr;
  Channel* channel = nullptr;
  Region region;
  int exchange = 0;  // of its session
  int index = 0;     // in its exchange: sends first, in order
  int peer = 0;
  bool receive = false;
  State state = State::idle;
  Ticket* next = nullptr;   // in its channel's queue, or among the meetings that wait to be carried
  Ticket* match = nullptr;  // the ticket it met last
};

class TicketQueue {
 public:
  void push(Ticket* ticket);
  Ticket* pop();  // nullptr when empty
  void remove(Ticket* ticket);

 private:
  Ticket* first_ = nullptr;
  Ticket* last_ = nullptr;
};

// Of the messages from one rank to another on one lane, those that have not met yet: only sends, or only receives.
struct Channel {
  TicketQueue sends, receives;
};

class Channels {
 public:
  // The caller holds the hub's mutex. The channel stays where it is as long as the world lasts.
  Channel& channel(int from, int to, int lane) { return channels_[{from, to, lane}]; }

 private:
  std::map<std::tuple<int, int, int>, Channel> channels_;
};

// What becomes of a session's exchanges. Any thread of the world may call these; one at a time of a session, but for
// carry().
class Carrier {
 public:
  virtual ~Carrier() = default;
  virtual void begin(int exchange) = 0;                               // its messages are about to be offered
  virtual void carry(const Ticket& receive, const Ticket& send) = 0;  // called on the receiver's carrier
  virtual void end(int exchange) = 0;                                 // all its messages have been carried
};

// One rank's session: link.hpp says what its functions do.
class Rendezvous final : public LinkSession {
 public:
  Rendezvous(Hub& hub, Channels& channels, int rank, const std::vector<LinkExchange>& exchanges, Carrier& carrier);
  ~Rendezvous() override { end_run(); }

  void begin_run(const RunName& run) override;
  void start(int exchange) override;
  bool done(int exchange) override;
  void wait(int exchange, double timeout_seconds) override;
  ExchangeTimes times(int exchange) const override;
  void end_run() noexcept override;

  const std::vector<Ticket>& tickets(int exchange) const { return exchanges_[exchange].tickets; }
  // For who meets a ticket of another rank: its carrier.
  Carrier& carrier() const { return carrier_; }
  // What an exchange has not carried, or all of it, as text for an error.
  std::vector<Outstanding> messages(int exchange, bool only_outstanding) const;

 private:
  struct Exchange {
    int lane = 0;
    std::vector<Ticket> tickets;
    int unfinished = 0;
    ExchangeTimes times;
  };
  using Lock = std::unique_lock<std::mutex>;

  // With the mutex held; `meetings` takes the receives that have met their send and are yet to be carried.
  void post_ready(TicketQueue& meetings);
  void post(Ticket& ticket, TicketQueue& meetings);
  void finish(Ticket& ticket, TicketQueue& meetings);
  void complete(int exchange);
  void throw_if_peer_is_elsewhere();
  // Calls the carrier; what it throws fails the world in this rank's name.
  template <typename Call>
  void guarded(const Call& call);
  // Has them carried, with the mutex released, and those that they lead to.
  static void carry(Lock& lock, TicketQueue& meetings);

  Hub& hub_;
  const int rank_;
  Carrier& carrier_;
  std::vector<Exchange> exchanges_;
  PostingOrder order_;
  std::vector<std::atomic<bool>> done_;
  RunName run_;
  bool running_ = false;
  int started_ = 0;
  int carrying_ = 0;  // tickets whose memory is in use by carry()
};

}  // namespace orrery
