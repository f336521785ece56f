#include "launch/cores.hpp"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "launch/text.hpp"

namespace orrery::launch {
namespace {

struct RankCores {
  int threads = 0;
  cpu_set_t mask{};  // empty: not known
};

std::string crowded_rank(const std::vector<RankCores>& ranks) {
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const int cores = CPU_COUNT(&ranks[rank].mask);
    if (cores == 0 || ranks[rank].threads <= cores) continue;
    return concat("rank ", rank, " computes with ", counted(ranks[rank].threads, "thread"), " on ",
                  counted(cores, "core"),
                  cores == 1 && ranks.size() > 1 ? "; mpirun --bind-to none binds no rank to a core" : "");
  }
  return {};
}

std::string crowded_node(const std::vector<RankCores>& ranks, const Topology& topology) {
  for (int node = 0; node < topology.nodes(); ++node) {
    RankCores all;
    int members = 0;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      if (topology.node_of_rank[rank] != node) continue;
      all.threads += ranks[rank].threads;
      CPU_OR(&all.mask, &all.mask, &ranks[rank].mask);
      ++members;
    }
    const int cores = CPU_COUNT(&all.mask);
    if (cores == 0 || all.threads <= cores) continue;
    return concat("the ", counted(members, "rank"), " of a node compute with ", counted(all.threads, "thread"), " on ",
                  counted(cores, "core"));
  }
  return {};
}

}  // namespace

void note_crowded_cores(World& world, int threads) {
  RankCores mine{threads, {}};
  if (::sched_getaffinity(0, sizeof mine.mask, &mine.mask) != 0) CPU_ZERO(&mine.mask);
  std::vector<RankCores> ranks;
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    ORRERY_CHECK(bytes.size() == sizeof(RankCores), "rank ", ranks.size(), " gave ", bytes.size(), " bytes");
    std::memcpy(&ranks.emplace_back(), bytes.data(), sizeof(RankCores));
  }
  const bool many = std::any_of(ranks.begin(), ranks.end(), [](const RankCores& rank) { return rank.threads > 1; });
  if (world.rank() != 0 || !many) return;
  std::string note = crowded_rank(ranks);
  if (note.empty()) note = crowded_node(ranks, world.topology());
  if (!note.empty()) print_note(note);
}

}  // namespace orrery::launch
