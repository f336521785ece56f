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
    rank.dependencies = std::make_unique<Dependencies>(program);
    rank.complete.assign(program.steps.size(), 0);
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
  Rank& r = ranks_[static_cast<std::size_t>(rank)];
  const Step& s = r.effects->program().steps[static_cast<std::size_t>(step)];
  if (const auto* exchange = std::get_if<Exchange>(&s)) {
    r.lanes[exchange->lane].push_back(step);
  } else {
    r.computation.push_back(step);
  }
}

bool CoverageWorld::run() {
  while (true) {
    bool moved = false;
    for (Rank& rank : ranks_) {
      while (compute(rank)) moved = true;
      while (post(rank)) moved = true;
    }
    if (moved) continue;
    if (complete_transfers()) continue;
    break;
  }
  const bool done = std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) {
    return rank.computation.empty() && rank.in_flight.empty() &&
           std::all_of(rank.lanes.begin(), rank.lanes.end(), [](const auto& lane) { return lane.second.empty(); });
  });
  if (!done) report_deadlock();
  return done;
}

bool CoverageWorld::ready(const Rank& rank, int step) const {
  const auto after = rank.dependencies->of(step);
  return std::all_of(after.begin(), after.end(),
                     [&](int s) { return rank.complete[static_cast<std::size_t>(s)] != 0; });
}

bool CoverageWorld::compute(Rank& rank) {
  if (rank.computation.empty() || !ready(rank, rank.computation.front())) return false;
  const int step = rank.computation.front();
  rank.computation.pop_front();
  check_hazards(rank, step);
  rank.effects->apply(step, rank.nodes[static_cast<std::size_t>(step)]);
  rank.complete[static_cast<std::size_t>(step)] = 1;
  return true;
}

// Posts the first exchange of a lane whose predecessor on the lane is complete.
bool CoverageWorld::post(Rank& rank) {
  const RankProgram& program = rank.effects->program();
  for (auto& [lane, queue] : rank.lanes) {
    if (queue.empty() || !ready(rank, queue.front())) continue;
    const int step = queue.front();
    const bool posted =
        std::any_of(rank.in_flight.begin(), rank.in_flight.end(), [&](const InFlight& f) { return f.step == step; });
    if (posted) continue;
    check_hazards(rank, step);
    const auto& exchange = std::get<Exchange>(program.steps[static_cast<std::size_t>(step)]);
    rank.in_flight.push_back({step, exchange.sends.size() + exchange.receives.size()});
    for (std::size_t i = 0; i < exchange.sends.size(); ++i) {
      channels_[{program.rank, exchange.sends[i].peer, lane}].sends.push_back({program.rank, step, i});
    }
    for (std::size_t i = 0; i < exchange.receives.size(); ++i) {
      channels_[{exchange.receives[i].peer, program.rank, lane}].receives.push_back({program.rank, step, i});
    }
    return true;
  }
  return false;
}

bool CoverageWorld::complete_transfers() {
  bool moved = false;
  for (auto channel = channels_.begin(); channel != channels_.end();) {
    auto& [sends, receives] = channel->second;
    while (!sends.empty() && !receives.empty()) {
      transfer(sends.front(), receives.front());
      finish(sends.front());
      finish(receives.front());
      sends.pop_front();
      receives.pop_front();
      moved = true;
    }
    channel = sends.empty() && receives.empty() ? channels_.erase(channel) : std::next(channel);
  }
  return moved;
}

void CoverageWorld::transfer(const Posted& send, const Posted& receive) {
  Rank& from = ranks_[static_cast<std::size_t>(send.rank)];
  Rank& to = ranks_[static_cast<std::size_t>(receive.rank)];
  const auto step_of = [](const Rank& rank, int step) -> const Exchange& {
    return std::get<Exchange>(rank.effects->program().steps[static_cast<std::size_t>(step)]);
  };
  const Slice& source = step_of(from, send.step).sends[send.index].slice;
  const Slice& target = step_of(to, receive.step).receives[receive.index].slice;
  const RankProgram& sender = from.effects->program();
  const RankProgram& receiver = to.effects->program();
  const Buffer& sent = sender.buffers[static_cast<std::size_t>(source.buffer)];
  const Buffer& received = receiver.buffers[static_cast<std::size_t>(target.buffer)];
  const bool same_order = step_of(from, send.step).order == step_of(to, receive.step).order;
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
    const Slice place{target.buffer, target.token_begin + cell.token_begin - source.token_begin,
                      cell.token_end - cell.token_begin, target.head_begin + cell.head_begin - source.head_begin,
                      cell.head_end - cell.head_begin};
    if (cell.value.identity.known()) {
      cell.value.identity.token_shift += source.token_begin - target.token_begin;
      cell.value.identity.head_shift += source.head_begin - target.head_begin;
    }
    context_.lineage.used(cell.value.writer, node);
    cell.value.writer = node;
    to.effects->memory(target).write(place, std::move(cell.value));
  }
}

// One transfer of an exchange is complete; with the last, the exchange is.
void CoverageWorld::finish(const Posted& side) {
  Rank& rank = ranks_[static_cast<std::size_t>(side.rank)];
  const auto flight = std::find_if(rank.in_flight.begin(), rank.in_flight.end(),
                                   [&](const InFlight& f) { return f.step == side.step; });
  if (--flight->open > 0) return;
  rank.in_flight.erase(flight);
  rank.complete[static_cast<std::size_t>(side.step)] = 1;
  const auto& exchange = std::get<Exchange>(rank.effects->program().steps[static_cast<std::size_t>(side.step)]);
  rank.lanes[exchange.lane].pop_front();
}

void CoverageWorld::check_hazards(Rank& rank, int step) {
  const RankProgram& program = rank.effects->program();
  for (const InFlight& flight : rank.in_flight) {
    for_each_access(program.steps[static_cast<std::size_t>(flight.step)], [&](const Access& moving) {
      for_each_access(program.steps[static_cast<std::size_t>(step)], [&](const Access& access) {
        const bool both_read = moving.mode == AccessMode::read && access.mode == AccessMode::read;
        if (both_read || !overlap(moving.slice, access.slice)) return;
        rank.effects->report(Fault::hazard, step, "touches ", to_text(program, access.slice), " while step ",
                             flight.step, " still moves it");
      });
    });
  }
}

void CoverageWorld::report_deadlock() {
  for (Rank& rank : ranks_) {
    const RankProgram& program = rank.effects->program();
    for (const InFlight& flight : rank.in_flight) {
      std::string waits;
      for (const auto& [key, channel] : channels_) {
        const auto& [from, to, lane] = key;
        for (const Posted& p : channel.sends) {
          if (p.rank == program.rank && p.step == flight.step)
            waits += concat(" rank ", to, " to receive on lane ", lane);
        }
        for (const Posted& p : channel.receives) {
          if (p.rank == program.rank && p.step == flight.step)
            waits += concat(" rank ", from, " to send on lane ", lane);
        }
      }
      rank.effects->report(Fault::deadlock, flight.step, "waits for ever for", waits);
    }
  }
}

}  // namespace orrery::coverage
