#include "link/run_name.hpp"

#include "orrery/error.hpp"

namespace orrery {

std::string to_text(const RunName& run) {
  return concat("call ", run.call, run.backward != 0 ? " (backward)" : " (forward)", " of plan ", std::hex, run.plan);
}

std::string not_the_same(int rank, const RunName& run, int other_rank, const RunName& other) {
  return concat("the ranks are not at the same call: rank ", rank, " is at ", to_text(run), ", rank ", other_rank,
                " at ", to_text(other));
}

}  // namespace orrery
