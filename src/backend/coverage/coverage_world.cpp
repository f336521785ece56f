#include "backend/coverage/coverage_world.hpp"

#include <algorithm>

namespace orrery::coverage {

void CoverageBackend::issue(int step) {
  world_.issue(rank_, step);
}

CoverageWorld::CoverageWorld(Context& context, const std::vector<RankProgram>& programs) : context_(context) {
  for (const RankProgram& program : programs) {
    Rank rank;
    rank.effects = std::make_unique<Effects>(context, program);
    for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
      const auto* exchange = std::get_if<Exchange>(&program.steps[static_cast<std::size_t>(step)]);
      if (exchange == nullptr) {
        rank.nodes.push_back(context.lineage.add({program.pass, program.rank, step, -1}));
        continue;
      }
      rank.nodes.push_back(static_cast<int>(context.lineage.nodes().size()));
      for (int i = 0; i < static_cast<int>(exchange->receives.size()); ++i) {
        context.lineage.add({program.pass, program.rank, step, i});
      }
    }
    ranks_.push_back(std::move(rank));
  }
}

void CoverageWorld::issue(int rank, int step) {
  ranks_[static_cast<std::size_t>(rank)].issued.push_back(step);
}

bool CoverageWorld::run() {
  for (int rank = static_cast<int>(ranks_.size()); rank-- > 0;) free_.push_back(rank);
  while (!free_.empty()) {
    Rank& rank = ranks_[static_cast<std::size_t>(free_.back())];
    free_.pop_back();
    advance(rank);
  }
  const bool stuck = std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.open > 0; });
  if (stuck) report_deadlock();
  return !stuck;
}

void CoverageWorld::advance(Rank& rank) {
  while (rank.open == 0 && rank.begun < rank.issued.size()) {
    const int step = rank.issued[rank.begun++];
    if (const auto* exchange = std::get_if<Exchange>(&rank.effects->step(step))) {
      post(rank, step, *exchange);
    } else {
      rank.effects->apply(step, rank.nodes[static_cast<std::size_t>(step)]);
    }
  }
}

void CoverageWorld::post(Rank& rank, int step, const Exchange& exchange) {
  const int me = rank.effects->program().rank;
  rank.open = exchange.sends.size() + exchange.receives.size();
  for (std::size_t i = 0; i < exchange.sends.size(); ++i) {
    Channel& channel = channels_[{me, exchange.sends[i].peer, exchange.lane}];
    channel.sends.push_back({me, step, i});
    meet(channel);
  }
  for (std::size_t i = 0; i < exchange.receives.size(); ++i) {
    Channel& channel = channels_[{exchange.receives[i].peer, me, exchange.lane}];
    channel.receives.push_back({me, step, i});
    meet(channel);
  }
}

// The n-th send of a channel meets its n-th receive. With its last transfer an exchange is complete, and its rank free.
void CoverageWorld::meet(Channel& channel) {
  if (channel.sends.empty() || channel.receives.empty()) return;
  transfer(channel.sends.front(), channel.receives.front());
  for (std::deque<Posted>* side : {&channel.sends, &channel.receives}) {
    const int rank = side->front().rank;
    side->pop_front();
    if (--ranks_[static_cast<std::size_t>(rank)].open == 0) free_.push_back(rank);
  }
}

void CoverageWorld::transfer(const Posted& send, const Posted& receive) {
  Rank& from = ranks_[static_cast<std::size_t>(send.rank)];
  Rank& to = ranks_[static_cast<std::size_t>(receive.rank)];
  const auto& sending = std::get<Exchange>(from.effects->step(send.step));
  const auto& receiving = std::get<Exchange>(to.effects->step(receive.step));
  const Slice& source = sending.sends[send.index].slice;
  const Slice& target = receiving.receives[receive.index].slice;
  const RankProgram& sender = from.effects->program();
  const RankProgram& receiver = to.effects->program();
  const Buffer& sent = sender.buffers[static_cast<std::size_t>(source.buffer)];
  const Buffer& received = receiver.buffers[static_cast<std::size_t>(target.buffer)];
  const bool same_order = sending.order == receiving.order;
  if (source.tokens != target.tokens || source.heads != target.heads || sent.kind != received.kind ||
      sent.dtype != received.dtype || !same_order) {
    to.effects->report(Fault::mismatch, receive.step, to_text(receiver, target), " meets ", to_text(sender, source),
                       " from step ", send.step, " of rank ", send.rank,
                       same_order ? "" : ", with its rows in another order");
    return;
  }
  const int node = to.nodes[static_cast<std::size_t>(receive.step)] + static_cast<int>(receive.index);
  for (Cell& cell : from.effects->memory(source).read(source)) {
    if (!cell.value.written) {
      from.effects->report(Fault::unwritten, send.step, "sends rows ", cell.token_begin, " to ", cell.token_end,
                           " that nothing wrote");
    }
    if (cell.value.identity.known()) cell.value.identity = shifted(cell.value.identity, target, source);
    context_.lineage.used(cell.value.writer, node);
    cell.value.writer = node;
    to.effects->memory(target).write(corresponding(target, source, cell), cell.value);
  }
}

void CoverageWorld::report_deadlock() {
  std::map<int, std::string> waits;  // by rank
  for (const auto& [key, channel] : channels_) {
    const auto& [from, to, lane] = key;
    if (!channel.sends.empty()) waits[from] += concat(", for rank ", to, whereabouts(to), " to receive on lane ", lane);
    if (!channel.receives.empty())
      waits[to] += concat(", for rank ", from, whereabouts(from), " to send on lane ", lane);
  }
  for (const auto& [rank, text] : waits) {
    const Rank& waiting = ranks_[static_cast<std::size_t>(rank)];
    waiting.effects->report(Fault::deadlock, waiting.issued[waiting.begun - 1], "waits for ever", text);
  }
}

std::string CoverageWorld::whereabouts(int rank) const {
  const Rank& r = ranks_[static_cast<std::size_t>(rank)];
  return r.open > 0 ? concat(" (at step ", r.issued[r.begun - 1], ")") : std::string(" (at its end)");
}

}  // namespace orrery::coverage
