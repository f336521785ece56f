#include "executor/walk.hpp"

#include <algorithm>

#include "orrery/error.hpp"

namespace orrery {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

}  // namespace

Walk::Walk(const std::vector<RankProgram>& programs, const std::vector<Order>& orders, Client& client)
    : client_(client) {
  ORRERY_CHECK(orders.size() == 1 || orders.size() == programs.size(), orders.size(), " orders for ", programs.size(),
               " ranks");
  ranks_.reserve(programs.size());
  for (std::size_t r = 0; r < programs.size(); ++r) {
    const RankProgram& program = programs[r];
    Rank& rank = ranks_.emplace_back();
    rank.program = &program;
    rank.order = orders[orders.size() == 1 ? 0 : r];
    if (!rank.order.is_strict()) rank.dependencies.emplace(program);
    rank.begun.resize(program.steps.size());
    rank.queues.emplace_back();
    std::map<int, std::vector<int>> lanes;
    for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
      const auto* exchange = std::get_if<Exchange>(&program.steps[at(step)]);
      rank.open.push_back(exchange == nullptr ? 1 : exchange->sends.size() + exchange->receives.size());
      (exchange == nullptr ? rank.queues.front().steps : lanes[exchange->lane]).push_back(step);
      if (exchange != nullptr) rank.exchanges.steps.push_back(step);
    }
    for (auto& [lane, steps] : lanes) rank.queues.push_back({std::move(steps)});
  }
  for (int rank = static_cast<int>(ranks_.size()); rank-- > 0;) list(rank);
}

void Walk::advance() {
  while (!listed_.empty()) {
    const int r = listed_.back();
    listed_.pop_back();
    Rank& rank = ranks_[at(r)];
    rank.listed = false;
    for (Queue& queue : rank.queues) {
      if (queue.begun == queue.steps.size() || !may_begin(rank, queue, queue.steps[queue.begun])) continue;
      list(r);  // what began may let others begin
      begin(r, queue, queue.steps[queue.begun]);
    }
  }
}

bool Walk::is_complete(const Rank& rank, int step) {
  return rank.begun[at(step)] && rank.open[at(step)] == 0;
}

bool Walk::may_begin(const Rank& rank, const Queue& queue, int step) const {
  const Order& order = rank.order;
  const Queue& computation = rank.queues.front();
  const bool computes = &queue == &computation;
  if ((computes || order.lane) && !queue.before(step, queue.complete)) return false;
  if (order.met && !rank.exchanges.before(step, rank.exchanges.complete)) return false;
  if (!computes && order.computation && !computation.before(step, computation.complete)) return false;
  if (!computes && order.begun && !rank.exchanges.before(step, rank.exchanges.begun)) return false;
  if (!rank.dependencies) return true;
  const auto earlier = rank.dependencies->of(step);
  return std::all_of(earlier.begin(), earlier.end(), [&](int e) { return is_complete(rank, e); });
}

void Walk::begin(int r, Queue& queue, int step) {
  Rank& rank = ranks_[at(r)];
  ++queue.begun;
  rank.begun[at(step)] = 1;
  Queue& exchanges = rank.exchanges;
  while (exchanges.begun < exchanges.steps.size() && rank.begun[at(exchanges.steps[exchanges.begun])])
    ++exchanges.begun;
  client_.begin(r, step);
  const auto* exchange = std::get_if<Exchange>(&rank.program->steps[at(step)]);
  if (exchange == nullptr) return;
  for (std::size_t i = 0; i < exchange->sends.size(); ++i) {
    Channel& channel = channels_[{r, exchange->sends[i].peer, exchange->lane}];
    channel.sends.push_back({r, step, i});
    meet(channel);
  }
  for (std::size_t i = 0; i < exchange->receives.size(); ++i) {
    Channel& channel = channels_[{exchange->receives[i].peer, r, exchange->lane}];
    channel.receives.push_back({r, step, i});
    meet(channel);
  }
}

void Walk::meet(Channel& channel) {
  if (channel.sends.empty() || channel.receives.empty()) return;
  const Message message{channel.sends.front(), channel.receives.front()};
  channel.sends.pop_front();
  channel.receives.pop_front();
  client_.meet(message);
}

void Walk::done(int r, int step) {
  Rank& rank = ranks_[at(r)];
  ORRERY_CHECK(rank.begun[at(step)] && rank.open[at(step)] > 0, "rank ", r, " step ", step, " has no part to be done");
  if (--rank.open[at(step)] > 0) return;
  const auto count = [&](Queue& queue) {
    while (queue.complete < queue.steps.size() && is_complete(rank, queue.steps[queue.complete])) ++queue.complete;
  };
  for (Queue& queue : rank.queues) count(queue);
  count(rank.exchanges);
  list(r);
  client_.complete(r, step);
}

void Walk::done(const Message& message) {
  done(message.send.rank, message.send.step);
  done(message.receive.rank, message.receive.step);
}

void Walk::list(int rank) {
  if (ranks_[at(rank)].listed) return;
  ranks_[at(rank)].listed = true;
  listed_.push_back(rank);
}

bool Walk::complete() const {
  for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
    if (stands_at(rank)) return false;
  }
  return true;
}

std::optional<int> Walk::stands_at(int rank) const {
  std::optional<int> first;
  for (const Queue& queue : ranks_[at(rank)].queues) {
    if (queue.complete == queue.steps.size()) continue;
    const int step = queue.steps[queue.complete];
    if (!first || step < *first) first = step;
  }
  return first;
}

std::vector<Walk::Waiting> Walk::waiting() const {
  std::vector<Waiting> list;
  for (const auto& [key, channel] : channels_) {
    const auto& [from, to, lane] = key;
    if (!channel.sends.empty()) list.push_back({from, to, lane, true});
    if (!channel.receives.empty()) list.push_back({from, to, lane, false});
  }
  return list;
}

}  // namespace orrery
