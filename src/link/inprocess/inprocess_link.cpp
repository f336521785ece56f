#include "link/inprocess/inprocess_link.hpp"

#include <sched.h>

#include <atomic>
#include <utility>

#include "link/outstanding.hpp"
#include "link/posting_order.hpp"
#include "link/region.hpp"

namespace orrery {
namespace {

// Looks at a flag that another thread will raise soon, before sleeping: waking a sleeper costs more than most copies.
constexpr int kLooks = 40;

}  // namespace

class InprocessSession final : public LinkSession {
 public:
  InprocessSession(Hub& hub, Channels& channels, int rank, const std::vector<LinkExchange>& exchanges);
  ~InprocessSession() override { end_run(); }

  void begin_run() override;
  void start(int exchange) override;
  bool done(int exchange) override;
  void wait(int exchange, double timeout_seconds) override;
  ExchangeTimes times(int exchange) const override;
  void end_run() noexcept override;

 private:
  struct Exchange {
    int lane = 0;
    std::vector<Ticket> tickets;
    int unfinished = 0;
    ExchangeTimes times;
  };
  using Lock = std::unique_lock<std::mutex>;

  // With the mutex held; `meetings` takes the receives that have met their send and are yet to be copied.
  void post_ready(TicketQueue& meetings);
  void post(Ticket& ticket, TicketQueue& meetings);
  void finish(Ticket& ticket, TicketQueue& meetings);
  void complete(int exchange);
  void throw_if_peer_left() const;
  std::vector<Outstanding> outstanding(int exchange) const;
  // Makes the copies, with the mutex released, and those that they lead to.
  static void carry(Lock& lock, TicketQueue& meetings);

  Hub& hub_;
  const int rank_;
  std::vector<Exchange> exchanges_;
  PostingOrder order_;
  std::vector<std::atomic<bool>> done_;
  bool running_ = false;
  int started_ = 0;
  int copying_ = 0;  // tickets whose memory is in use by a copy
};

InprocessSession::InprocessSession(Hub& hub, Channels& channels, int rank, const std::vector<LinkExchange>& exchanges)
    : hub_(hub), rank_(rank), exchanges_(exchanges.size()), order_(exchanges), done_(exchanges.size()) {
  const Lock lock(hub_.mutex());
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    const LinkExchange& asked = exchanges[index];
    Exchange& mine = exchanges_[index];
    mine.lane = asked.lane;
    auto add = [&](const Message& message, bool receive) {
      Ticket& ticket = mine.tickets.emplace_back();
      ticket.session = this;
      ticket.channel = receive ? &channels.channel(message.peer, rank_, asked.lane)
                               : &channels.channel(rank_, message.peer, asked.lane);
      ticket.region = simplified(message.region);
      ticket.exchange = static_cast<int>(index);
      ticket.peer = message.peer;
      ticket.receive = receive;
    };
    for (const Message& message : asked.sends) add(message, false);
    for (const Message& message : asked.receives) add(message, true);
  }
}

void InprocessSession::begin_run() {
  const Lock lock(hub_.mutex());
  ORRERY_CHECK(!running_, "rank ", rank_, " begins a run inside a run");
  hub_.throw_if_failed(rank_);
  for (Exchange& exchange : exchanges_) {
    exchange.unfinished = static_cast<int>(exchange.tickets.size());
    exchange.times = {};
  }
  for (std::atomic<bool>& done : done_) done.store(false, std::memory_order_relaxed);
  order_.begin_run();
  started_ = 0;
  running_ = true;
}

void InprocessSession::start(int exchange) {
  Lock lock(hub_.mutex());
  ORRERY_CHECK(running_ && exchange == started_, "exchange ", exchange, " is started where ", started_, " is next");
  hub_.throw_if_failed(rank_);
  ++started_;
  TicketQueue meetings;
  post_ready(meetings);
  carry(lock, meetings);
}

bool InprocessSession::done(int exchange) {
  if (done_[exchange].load(std::memory_order_acquire)) return true;
  if (!hub_.failed()) return false;
  const Lock lock(hub_.mutex());
  hub_.throw_if_failed(rank_);
  return false;
}

void InprocessSession::wait(int exchange, double timeout_seconds) {
  for (int look = 0; look < kLooks; ++look) {
    if (done_[exchange].load(std::memory_order_acquire)) return;
    if (hub_.failed()) break;
    sched_yield();
  }
  const Deadline deadline(timeout_seconds);
  Lock lock(hub_.mutex());
  ORRERY_CHECK(running_ && exchange < started_, "exchange ", exchange, " is awaited, but was not started");
  while (!done_[exchange].load(std::memory_order_relaxed)) {
    hub_.throw_if_failed(rank_);
    throw_if_peer_left();
    if (deadline.passed()) {
      fail(ErrorCode::peer, describe(outstanding(order_.obstacle(exchange)), timeout_seconds));
    }
    hub_.wake(rank_).wait_until(lock, deadline.at());
  }
}

ExchangeTimes InprocessSession::times(int exchange) const {
  const Lock lock(hub_.mutex());
  return exchanges_[exchange].times;
}

void InprocessSession::end_run() noexcept {
  Lock lock(hub_.mutex());
  if (!running_) return;
  running_ = false;
  for (Exchange& exchange : exchanges_) {
    for (Ticket& ticket : exchange.tickets) {
      if (ticket.state != Ticket::State::queued) continue;
      (ticket.receive ? ticket.channel->receives : ticket.channel->sends).remove(&ticket);
      ticket.state = Ticket::State::idle;
    }
  }
  hub_.wake(rank_).wait(lock, [&] { return copying_ == 0; });
}

void InprocessSession::post_ready(TicketQueue& meetings) {
  for (int exchange = order_.next(started_); exchange >= 0; exchange = order_.next(started_)) {
    exchanges_[exchange].times.began = steady_seconds();
    for (Ticket& ticket : exchanges_[exchange].tickets) post(ticket, meetings);
    if (exchanges_[exchange].tickets.empty()) complete(exchange);
  }
}

void InprocessSession::post(Ticket& ticket, TicketQueue& meetings) {
  Channel& channel = *ticket.channel;
  Ticket* other = (ticket.receive ? channel.sends : channel.receives).pop();
  if (other == nullptr) {
    (ticket.receive ? channel.receives : channel.sends).push(&ticket);
    ticket.state = Ticket::State::queued;
    return;
  }
  Ticket& send = ticket.receive ? *other : ticket;
  Ticket& receive = ticket.receive ? ticket : *other;
  other->state = Ticket::State::idle;
  if (send.region.bytes() != receive.region.bytes()) {
    hub_.fail_locked(receive.session->rank_, ErrorCode::bug,
                     concat("rank ", send.session->rank_, " sends ", send.region.bytes(), " bytes on lane ",
                            exchanges_[ticket.exchange].lane, " where rank ", receive.session->rank_, " receives ",
                            receive.region.bytes()));
    return;
  }
  for (Ticket* each : {&send, &receive}) {
    each->state = Ticket::State::copying;
    ++each->session->copying_;
  }
  receive.match = &send;
  meetings.push(&receive);
}

void InprocessSession::carry(Lock& lock, TicketQueue& meetings) {
  while (Ticket* receive = meetings.pop()) {
    Ticket* send = receive->match;
    lock.unlock();
    copy_region(receive->region, send->region);
    lock.lock();
    send->session->finish(*send, meetings);
    receive->session->finish(*receive, meetings);
  }
}

void InprocessSession::finish(Ticket& ticket, TicketQueue& meetings) {
  ticket.state = Ticket::State::idle;
  --copying_;
  if (!running_) {  // end_run() waits for this copy
    hub_.wake(rank_).notify_all();
    return;
  }
  if (--exchanges_[ticket.exchange].unfinished > 0) return;
  complete(ticket.exchange);
  post_ready(meetings);
}

void InprocessSession::complete(int exchange) {
  exchanges_[exchange].times.ended = steady_seconds();
  order_.complete(exchange);
  done_[exchange].store(true, std::memory_order_release);
  hub_.wake(rank_).notify_all();
}

void InprocessSession::throw_if_peer_left() const {
  // Who has returned has no ticket left anywhere, so a ticket that waits for them waits for ever.
  for (const Exchange& exchange : exchanges_) {
    for (const Ticket& ticket : exchange.tickets) {
      if (ticket.state != Ticket::State::queued || !hub_.has_left(ticket.peer)) continue;
      const std::int64_t bytes = ticket.region.bytes();
      fail(ErrorCode::peer, describe_left({ticket.receive, ticket.peer, exchange.lane, bytes, bytes}));
    }
  }
}

std::vector<Outstanding> InprocessSession::outstanding(int exchange) const {
  std::vector<Outstanding> list;
  for (const Ticket& ticket : exchanges_[exchange].tickets) {
    if (ticket.state == Ticket::State::idle) continue;
    const std::int64_t bytes = ticket.region.bytes();
    add_outstanding(list, {ticket.receive, ticket.peer, exchanges_[exchange].lane, bytes, bytes});
  }
  return list;
}

void TicketQueue::push(Ticket* ticket) {
  ticket->next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = ticket;
  last_ = ticket;
}

Ticket* TicketQueue::pop() {
  Ticket* ticket = first_;
  if (ticket != nullptr) first_ = ticket->next;
  if (first_ == nullptr) last_ = nullptr;
  return ticket;
}

void TicketQueue::remove(Ticket* ticket) {
  Ticket* before = nullptr;
  for (Ticket* each = first_; each != ticket; each = each->next) before = each;
  (before == nullptr ? first_ : before->next) = ticket->next;
  if (last_ == ticket) last_ = before;
}

std::unique_ptr<LinkSession> InprocessLink::prepare(std::vector<LinkExchange> exchanges) {
  check_exchanges(exchanges, rank_, hub_.world_size());
  return std::make_unique<InprocessSession>(hub_, channels_, rank_, exchanges);
}

}  // namespace orrery
