// Runs programs without memory, in the orders that links and backends choose, to see which of them come to their end:
// without the cleverness of executor/walk, beside which it stands.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "executor/walk.hpp"
#include "orrery/schedule.hpp"

namespace orrery::test {

inline constexpr Order kOrders[] = {kLanesFree, kNcclOrder, kNcclConnecting, kHostOrder, kStagedOrder, kProgramOrder};

// Whether all ranks come to their end, asked of every step again and again; ranks may choose different orders.
inline bool ends(const std::vector<RankProgram>& programs, const std::vector<Order>& order_of_rank) {
  struct Rank {
    std::vector<char> begun, complete;
    std::vector<std::size_t> open;  // transfers without partner, by step
    std::vector<int> next_on_lane;
  };
  using Channel = std::pair<std::vector<std::pair<int, int>>, std::vector<std::pair<int, int>>>;  // sends, receives
  std::map<std::tuple<int, int, int>, Channel> channels;
  std::vector<Rank> ranks;
  std::vector<Dependencies> dependencies;
  for (const RankProgram& p : programs) {
    const std::size_t steps = p.steps.size();
    ranks.push_back({std::vector<char>(steps), std::vector<char>(steps), std::vector<std::size_t>(steps), {}});
    dependencies.emplace_back(p);
  }
  const auto meet = [&](int rank, int step) {
    Rank& r = ranks[static_cast<std::size_t>(rank)];
    if (--r.open[static_cast<std::size_t>(step)] == 0) r.complete[static_cast<std::size_t>(step)] = 1;
  };
  const auto post = [&](Channel& channel, bool send, int rank, int step) {
    auto& mine = send ? channel.first : channel.second;
    auto& theirs = send ? channel.second : channel.first;
    mine.push_back({rank, step});
    if (mine.size() > theirs.size()) return;
    const auto [peer, peer_step] = theirs[mine.size() - 1];
    meet(rank, step);
    meet(peer, peer_step);
  };
  const auto may_begin = [&](std::size_t rank, int step) {
    const auto& steps = programs[rank].steps;
    const Rank& r = ranks[rank];
    const Order& order = order_of_rank[rank];
    for (int d : dependencies[rank].of(step)) {
      if (!r.complete[static_cast<std::size_t>(d)]) return false;
    }
    const auto* exchange = std::get_if<Exchange>(&steps[static_cast<std::size_t>(step)]);
    for (std::size_t i = 0; i < static_cast<std::size_t>(step); ++i) {
      const auto* earlier = std::get_if<Exchange>(&steps[i]);
      if (earlier == nullptr && (exchange == nullptr || order.computation) && !r.complete[i]) return false;
      if (earlier != nullptr && order.met && !r.complete[i]) return false;
      if (earlier == nullptr || exchange == nullptr) continue;
      const bool same_lane = earlier->lane == exchange->lane;
      if ((same_lane || order.begun) && !r.begun[i]) return false;
      if (same_lane && order.lane && !r.complete[i]) return false;
    }
    return true;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t rank = 0; rank < programs.size(); ++rank) {
      for (int step = 0; step < static_cast<int>(programs[rank].steps.size()); ++step) {
        Rank& r = ranks[rank];
        const auto i = static_cast<std::size_t>(step);
        if (r.begun[i] || !may_begin(rank, step)) continue;
        r.begun[i] = 1;
        moved = true;
        const auto* exchange = std::get_if<Exchange>(&programs[rank].steps[i]);
        if (exchange == nullptr) {
          r.complete[i] = 1;
          continue;
        }
        const int me = static_cast<int>(rank);
        r.open[i] = exchange->sends.size() + exchange->receives.size();
        for (const Transfer& t : exchange->sends) post(channels[{me, t.peer, exchange->lane}], true, me, step);
        for (const Transfer& t : exchange->receives) post(channels[{t.peer, me, exchange->lane}], false, me, step);
      }
    }
  }
  for (const Rank& r : ranks) {
    for (char complete : r.complete) {
      if (!complete) return false;
    }
  }
  return true;
}

}  // namespace orrery::test
