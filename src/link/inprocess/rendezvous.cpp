#include "link/inprocess/rendezvous.hpp"

#include <sched.h>

#include <optional>
#include <utility>

#include "link/region.hpp"

namespace orrery {
namespace {

// Looks at a flag that another thread will raise soon, before sleeping: waking a sleeper costs more than most copies.
constexpr int kLooks = 40;

}  // namespace

Rendezvous::Rendezvous(Hub& hub, Channels& channels, int rank, const std::vector<LinkExchange>& exchanges,
                       Carrier& carrier)
    : hub_(hub),
      rank_(rank),
      carrier_(carrier),
      exchanges_(exchanges.size()),
      order_(exchanges),
      done_(exchanges.size()) {
  const Lock lock(hub_.mutex());
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    const LinkExchange& asked = exchanges[index];
    Exchange& mine = exchanges_[index];
    mine.lane = asked.lane;
    auto add = [&](const Message& message, bool receive) {
      Ticket& ticket = mine.tickets.emplace_back();
      ticket.index = static_cast<int>(mine.tickets.size()) - 1;
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

template <typename Call>
void Rendezvous::guarded(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    hub_.fail_locked(rank_, error.code(), error.what());
  }
}

void Rendezvous::begin_run(const RunName& run) {
  const Lock lock(hub_.mutex());
  ORRERY_CHECK(!running_, "rank ", rank_, " begins a run inside a run");
  hub_.throw_if_failed(rank_);
  for (Exchange& exchange : exchanges_) {
    exchange.unfinished = static_cast<int>(exchange.tickets.size());
    exchange.times = {};
  }
  for (std::atomic<bool>& done : done_) done.store(false, std::memory_order_relaxed);
  order_.begin_run();
  run_ = run;
  hub_.set_run(rank_, run);
  started_ = 0;
  running_ = true;
}

void Rendezvous::start(int exchange) {
  Lock lock(hub_.mutex());
  ORRERY_CHECK(running_ && exchange == started_, "exchange ", exchange, " is started where ", started_, " is next");
  hub_.throw_if_failed(rank_);
  ++started_;
  TicketQueue meetings;
  post_ready(meetings);
  carry(lock, meetings);
}

bool Rendezvous::done(int exchange) {
  if (done_[exchange].load(std::memory_order_acquire)) return true;
  if (!hub_.failed()) return false;
  const Lock lock(hub_.mutex());
  hub_.throw_if_failed(rank_);
  return false;
}

void Rendezvous::wait(int exchange, double timeout_seconds) {
  for (int look = 0; look < kLooks; ++look) {
    if (done_[exchange].load(std::memory_order_acquire)) return;
    if (hub_.failed()) break;
    sched_yield();
  }
  const Deadline deadline(timeout_seconds, hub_.interrupted());
  Lock lock(hub_.mutex());
  ORRERY_CHECK(running_ && exchange < started_, "exchange ", exchange, " is awaited, but was not started");
  while (!done_[exchange].load(std::memory_order_relaxed)) {
    hub_.throw_if_failed(rank_);
    throw_if_peer_is_elsewhere();
    if (deadline.passed()) {
      fail(ErrorCode::peer, describe(messages(order_.obstacle(exchange), true), timeout_seconds));
    }
    hub_.wake(rank_).wait_until(lock, deadline.at());
  }
}

ExchangeTimes Rendezvous::times(int exchange) const {
  const Lock lock(hub_.mutex());
  return exchanges_[exchange].times;
}

void Rendezvous::end_run() noexcept {
  Lock lock(hub_.mutex());
  if (!running_) return;
  running_ = false;
  hub_.set_run(rank_, std::nullopt);
  for (Exchange& exchange : exchanges_) {
    for (Ticket& ticket : exchange.tickets) {
      if (ticket.state != Ticket::State::queued) continue;
      (ticket.receive ? ticket.channel->receives : ticket.channel->sends).remove(&ticket);
      ticket.state = Ticket::State::idle;
    }
  }
  hub_.wake(rank_).wait(lock, [&] { return carrying_ == 0; });
}

void Rendezvous::post_ready(TicketQueue& meetings) {
  for (int exchange = order_.next(started_); exchange >= 0; exchange = order_.next(started_)) {
    exchanges_[exchange].times.began = steady_seconds();
    guarded([&] { carrier_.begin(exchange); });
    for (Ticket& ticket : exchanges_[exchange].tickets) post(ticket, meetings);
    if (exchanges_[exchange].tickets.empty()) complete(exchange);
  }
}

void Rendezvous::post(Ticket& ticket, TicketQueue& meetings) {
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
  const Rendezvous &sends = *send.session, &receives = *receive.session;
  if (sends.run_ != receives.run_) {
    hub_.fail_locked(rank_, ErrorCode::peer, not_the_same(sends.rank_, sends.run_, receives.rank_, receives.run_));
    return;
  }
  if (send.region.bytes() != receive.region.bytes()) {
    hub_.fail_locked(receive.session->rank_, ErrorCode::bug,
                     concat("rank ", send.session->rank_, " sends ", send.region.bytes(), " bytes on lane ",
                            exchanges_[ticket.exchange].lane, " where rank ", receive.session->rank_, " receives ",
                            receive.region.bytes()));
    return;
  }
  for (Ticket* each : {&send, &receive}) {
    each->state = Ticket::State::carried;
    ++each->session->carrying_;
  }
  receive.match = &send;
  send.match = &receive;
  meetings.push(&receive);
}

void Rendezvous::carry(Lock& lock, TicketQueue& meetings) {
  while (Ticket* receive = meetings.pop()) {
    Ticket* send = receive->match;
    lock.unlock();
    std::optional<Error> error;
    try {
      receive->session->carrier_.carry(*receive, *send);
    } catch (const Error& met) {
      error = met;
    }
    lock.lock();
    if (error) receive->session->hub_.fail_locked(receive->session->rank_, error->code(), error->what());
    send->session->finish(*send, meetings);
    receive->session->finish(*receive, meetings);
  }
}

void Rendezvous::finish(Ticket& ticket, TicketQueue& meetings) {
  ticket.state = Ticket::State::idle;
  --carrying_;
  if (!running_) {  // end_run() waits for this copy
    hub_.wake(rank_).notify_all();
    return;
  }
  if (--exchanges_[ticket.exchange].unfinished > 0) return;
  complete(ticket.exchange);
  post_ready(meetings);
}

void Rendezvous::complete(int exchange) {
  guarded([&] { carrier_.end(exchange); });
  exchanges_[exchange].times.ended = steady_seconds();
  order_.complete(exchange);
  done_[exchange].store(true, std::memory_order_release);
  hub_.wake(rank_).notify_all();
}

// A ticket waits for ever for a peer that has returned, for all its tickets have left the channels; and for one that is
// in a later run or in another one of the same number, for all its tickets of this run have met theirs.
void Rendezvous::throw_if_peer_is_elsewhere() {
  for (const Exchange& exchange : exchanges_) {
    for (const Ticket& ticket : exchange.tickets) {
      if (ticket.state != Ticket::State::queued) continue;
      const std::int64_t bytes = ticket.region.bytes();
      if (hub_.has_left(ticket.peer)) {
        fail(ErrorCode::peer, describe_left({ticket.receive, ticket.peer, exchange.lane, bytes, bytes}));
      }
      const std::optional<RunName>& theirs = hub_.run(ticket.peer);
      if (!theirs || *theirs == run_ || theirs->call < run_.call) continue;
      hub_.fail_locked(rank_, ErrorCode::peer, not_the_same(ticket.peer, *theirs, rank_, run_));
      hub_.throw_if_failed(rank_);
    }
  }
}

std::vector<Outstanding> Rendezvous::messages(int exchange, bool only_outstanding) const {
  std::vector<Outstanding> list;
  for (const Ticket& ticket : exchanges_[exchange].tickets) {
    if (only_outstanding && ticket.state == Ticket::State::idle) continue;
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

}  // namespace orrery
