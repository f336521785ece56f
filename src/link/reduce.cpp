#include "link/reduce.hpp"

#include <algorithm>
#include <cstring>

namespace orrery {

void reduce(std::span<const std::vector<std::byte>> records, Reduction reduction, std::span<double> into) {
  std::vector<double> theirs(into.size());
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    ORRERY_CHECK(records[rank].size() == into.size_bytes(), "all_reduce: rank ", rank, " gave ", records[rank].size(),
                 " bytes, ", into.size_bytes(), " are needed");
    if (!into.empty()) std::memcpy(theirs.data(), records[rank].data(), into.size_bytes());
    for (std::size_t i = 0; i < into.size(); ++i) {
      const bool first = rank == 0;
      if (reduction == Reduction::sum) {
        into[i] = first ? theirs[i] : into[i] + theirs[i];
      } else if (first || theirs[i] > into[i]) {
        into[i] = theirs[i];
      }
    }
  }
}

void World::all_reduce(std::span<double> values, Reduction reduction) {
  reduce(all_gather(std::as_bytes(values)), reduction, values);
}

}  // namespace orrery
