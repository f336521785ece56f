#include "link/transport/transfers.hpp"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "link/region.hpp"

namespace orrery {
namespace {

// The caller looks this often, yielding, before it sleeps: a small message is there sooner than a sleeper wakes.
constexpr int kLooks = 20;

Region whole(void* data, std::size_t bytes) {
  return {.data = static_cast<std::byte*>(data), .run_bytes = static_cast<std::int64_t>(bytes)};
}

}  // namespace

Transfers::Transfers(Transport& transport, const std::vector<LinkExchange>& exchanges)
    : rank_(transport.rank()),
      order_(exchanges),
      unfinished_(exchanges.size()),
      times_(exchanges.size()),
      done_(exchanges.size()) {
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    first_message_.push_back(static_cast<int>(entries_.size()));
    lane_.push_back(exchanges[index].lane);
    add(exchanges[index], static_cast<int>(index));
  }
  first_message_.push_back(static_cast<int>(entries_.size()));
  add_names();
  gathered_.reserve(entries_.size());
  finished_.resize(entries_.size());

  std::vector<TransportMessage> messages;
  for (std::size_t number = 0; number < entries_.size(); ++number) {
    Entry& entry = entries_[number];
    const bool name = static_cast<int>(number) >= first_message_.back();
    Region region = simplified(entry.region);
    if (!region.contiguous() && !transport.takes_strided_regions()) {
      entry.packed.resize(static_cast<std::size_t>(region.bytes()));
      region = whole(entry.packed.data(), entry.packed.size());
    }
    messages.push_back({name ? kRunNamesLane : lane_[entry.exchange], entry.peer, entry.receive, region});
  }
  messages_ = transport.prepare(std::move(messages));
}

// Sends stand before receives, because they are posted in this order: two ranks that exchange over TCP and post their
// receives first can end up transferring one direction after the other.
void Transfers::add(const LinkExchange& exchange, int index) {
  for (const Message& message : exchange.sends) {
    entries_.push_back({.exchange = index, .peer = message.peer, .region = message.region});
  }
  for (const Message& message : exchange.receives) {
    const int source = add_source(message.peer);
    entries_.push_back(
        {.exchange = index, .peer = message.peer, .receive = true, .source = source, .region = message.region});
  }
}

// Of the message that is added next.
int Transfers::add_source(int rank) {
  auto known = std::find_if(sources_.begin(), sources_.end(), [=](const Source& one) { return one.rank == rank; });
  if (known == sources_.end()) known = sources_.insert(known, {rank, {}, false, {}});
  known->receives.push_back(static_cast<int>(entries_.size()));
  return static_cast<int>(known - sources_.begin());
}

// A name belongs to the first exchange with its peer, which is not complete before the name has moved.
void Transfers::add_names() {
  for (Source& source : sources_) {  // all are there, so a name stays where it is
    const int exchange = entries_[source.receives.front()].exchange;
    entries_.push_back({.exchange = exchange,
                        .peer = source.rank,
                        .receive = true,
                        .region = whole(&source.name, sizeof source.name)});
  }
  std::vector<int> told;
  for (int message = 0; message < first_message_.back(); ++message) {
    const int exchange = entries_[message].exchange, peer = entries_[message].peer;
    if (entries_[message].receive || std::find(told.begin(), told.end(), peer) != told.end()) continue;
    told.push_back(peer);
    entries_.push_back({.exchange = exchange, .peer = peer, .region = whole(&run_, sizeof run_)});
  }
}

void Transfers::begin_run(const RunName& run) {
  order_.begin_run();
  std::fill(unfinished_.begin(), unfinished_.end(), 0);
  for (Entry& entry : entries_) {
    entry.complete = false;
    ++unfinished_[entry.exchange];
  }
  std::fill(times_.begin(), times_.end(), ExchangeTimes{});
  for (std::atomic<bool>& done : done_) done.store(false, std::memory_order_relaxed);
  run_ = run;
  for (Source& source : sources_) source.known = false;
  names_begun_ = false;
  started_.store(0, std::memory_order_relaxed);
}

std::vector<Outstanding> Transfers::outstanding(int exchange) const {
  const int obstacle = order_.obstacle(exchange);
  const auto begin = entries_.begin() + first_message_[obstacle];
  const auto end = entries_.begin() + first_message_[obstacle + 1];
  std::vector<Outstanding> list;
  for (auto entry = begin; entry != end; ++entry) {
    const std::int64_t bytes = entry->region.bytes();
    if (!entry->complete) add_outstanding(list, {entry->receive, entry->peer, lane_[obstacle], bytes, bytes});
  }
  for (auto entry = begin; entry != end; ++entry) {  // what did move to or from the same peers
    for (Outstanding& one : list) {
      const bool same = entry->receive == one.receive && entry->peer == one.peer;
      if (entry->complete && same) one.of_bytes += entry->region.bytes();
    }
  }
  return list;
}

void Transfers::rethrow() const {
  std::rethrow_exception(failure_);
}

void Transfers::sleep_until_done(int exchange, const Deadline& deadline) {
  for (int look = 0; look < kLooks; ++look) {
    if (done(exchange) || failed()) return;
    sched_yield();
  }
  std::unique_lock lock(mutex_);
  while (!done(exchange) && !failed() && !deadline.passed()) changed_.wait_until(lock, deadline.at());
}

ProgressWork::State Transfers::poll() {
  State state;
  if (!names_begun_) {
    for (int name = first_message_.back(); name < static_cast<int>(entries_.size()); ++name) gathered_.push_back(name);
    post_gathered();
    names_begun_ = true;
  }
  const int started = started_.load(std::memory_order_acquire);
  for (int exchange = order_.next(started); exchange >= 0; exchange = order_.next(started)) {
    post(exchange);
    ++state.events;
  }
  if (under_way_ > 0) {
    const std::size_t count = messages_->poll(finished_);
    under_way_ -= static_cast<int>(count);
    for (std::size_t i = 0; i < count; ++i) finish(finished_[i]);
    state.events += static_cast<int>(count);
  }
  state.in_flight = under_way_ > 0;
  return state;
}

void Transfers::fail(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  failure_ = error;
  failed_.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Transfers::post(int exchange) {
  times_[exchange].began = steady_seconds();
  if (unfinished_[exchange] == 0) return complete(exchange);
  for (int message = first_message_[exchange]; message < first_message_[exchange + 1]; ++message) {
    const Entry& entry = entries_[message];
    if (!entry.receive || sources_[entry.source].known) gathered_.push_back(message);
  }
  post_gathered();
}

void Transfers::post_gathered() {
  if (gathered_.empty()) return;
  for (const int message : gathered_) {
    Entry& entry = entries_[message];
    if (!entry.receive && !entry.packed.empty()) {
      copy_region(whole(entry.packed.data(), entry.packed.size()), entry.region);
    }
  }
  under_way_ += static_cast<int>(gathered_.size());
  messages_->post(gathered_);
  gathered_.clear();
}

// What has been waiting for the source's name, in order.
void Transfers::meet(Source& source) {
  if (source.name != run_) orrery::fail(ErrorCode::peer, not_the_same(source.rank, source.name, rank_, run_));
  source.known = true;
  for (const int message : source.receives) {
    if (order_.begun(entries_[message].exchange)) gathered_.push_back(message);
  }
  post_gathered();
}

void Transfers::finish(int message) {
  Entry& entry = entries_[message];
  entry.complete = true;
  if (entry.receive && !entry.packed.empty()) {
    copy_region(entry.region, whole(entry.packed.data(), entry.packed.size()));
  }
  const int name = message - first_message_.back();
  if (name >= 0 && name < static_cast<int>(sources_.size())) meet(sources_[static_cast<std::size_t>(name)]);
  if (--unfinished_[entry.exchange] == 0) complete(entry.exchange);
}

void Transfers::complete(int exchange) {
  times_[exchange].ended = steady_seconds();
  order_.complete(exchange);
  const std::lock_guard lock(mutex_);
  done_[exchange].store(true, std::memory_order_release);
  changed_.notify_all();
}

}  // namespace orrery
