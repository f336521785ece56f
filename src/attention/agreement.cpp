#include "attention/agreement.hpp"

#include <algorithm>
#include <array>
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
  const std::vector<std::string> texts = all_gather(world, plan_text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    std::istringstream first(texts[0]), other(texts[rank]);
    std::string ours, theirs;
    while (ours == theirs && first >> ours && other >> theirs) {
    }
    refuse("the ranks were started with different arguments: rank ", rank, " has ", theirs, " where rank 0 has ", ours);
  }
}

void agree_on_call(World& world, std::uint64_t plan_hash, std::uint64_t call, Pass pass) {
  using Record = std::array<std::uint64_t, 3>;
  const Record mine{plan_hash, call, pass == Pass::backward ? 1u : 0u};
  const auto records = world.all_gather(std::as_bytes(std::span(mine)));
  std::vector<Record> all(records.size());
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    ORRERY_CHECK(records[rank].size() == sizeof(Record), "rank ", rank, " is not at a run but elsewhere");
    std::memcpy(all[rank].data(), records[rank].data(), sizeof(Record));
  }
  const auto name = [](const Record& r) {
    return concat("call ", r[1], " (", to_string(r[2] == 1 ? Pass::backward : Pass::forward), ") of plan ", std::hex,
                  r[0]);
  };
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      refuse("the ranks are not at the same call: rank ", rank, " is at ", name(all[rank]), ", rank 0 at ",
             name(all[0]));
    }
  }
}

}  // namespace orrery
