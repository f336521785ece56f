#include "attention/agreement.hpp"

#include <cstring>
#include <sstream>

#include "orrery/error.hpp"

namespace orrery {

std::uint64_t hash(const std::string& text) {
  std::uint64_t h = 0xcbf29ce484222325ULL;  // FNV-1a
  for (unsigned char c : text) h = (h ^ c) * 0x100000001b3ULL;
  return h;
}

void agree_on_plan(World& world, const std::string& plan_text) {
  const std::vector<std::string> hashes = all_gather(world, std::to_string(hash(plan_text)));
  std::size_t differs = 1;
  while (differs < hashes.size() && hashes[differs] == hashes[0]) ++differs;
  if (differs >= hashes.size()) return;
  const auto rank = static_cast<std::size_t>(world.rank());
  const std::vector<std::string> texts = all_gather(world, rank == 0 || rank == differs ? plan_text : std::string());
  std::istringstream first(texts[0]), other(texts[differs]);
  std::string ours, theirs;
  while (ours == theirs && first >> ours && other >> theirs) {
  }
  refuse("the ranks were started with different arguments: rank ", differs, " has ", theirs, " where rank 0 has ",
         ours);
}

void agree_on_call(World& world, const RunName& run, const std::string& objection) {
  std::string mine(sizeof run, '\0');
  std::memcpy(mine.data(), &run, sizeof run);
  const std::vector<std::string> records = all_gather(world, mine + objection);
  RunName first;
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    ORRERY_CHECK(records[rank].size() >= sizeof run, "rank ", rank, " is not at a run but elsewhere");
    RunName theirs;
    std::memcpy(&theirs, records[rank].data(), sizeof theirs);
    if (rank == 0) first = theirs;
    if (theirs != first) refuse(not_the_same(static_cast<int>(rank), theirs, 0, first));
  }
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    if (records[rank].size() > sizeof run) refuse("rank ", rank, ": ", records[rank].substr(sizeof run));
  }
}

}  // namespace orrery
