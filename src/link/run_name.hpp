// Which run it is that a rank is in: the plan, the number of the call, the pass. Messages have no names, so what meets
// is what comes next; a link makes sure that both ends are in the same run, or says which each is in.
#pragma once

#include <cstdint>
#include <string>

namespace orrery {

struct RunName {
  std::uint64_t plan = 0;      // the hash of its text
  std::uint64_t call = 0;      // counted from 0, over all attentions of the world
  std::uint64_t backward = 0;  // 1 in a backward pass
  friend bool operator==(const RunName&, const RunName&) = default;
};

// "call 3 (backward) of plan 8f0e..."
std::string to_text(const RunName& run);
// "the ranks are not at the same call: rank 1 is at call 3 (backward) of plan ..., rank 0 at call 3 (forward) of ..."
std::string not_the_same(int rank, const RunName& run, int other_rank, const RunName& other);

}  // namespace orrery
