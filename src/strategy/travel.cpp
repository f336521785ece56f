#include "strategy/travel.hpp"

#include <algorithm>

namespace orrery {

const Ranges& Travel::needed_by(int source) const {
  std::optional<Ranges>& known = needed_by_[static_cast<std::size_t>(source)];
  if (!known) known = layout_.owners(positions_seeing(mask_, layout_.shard(source)));
  return *known;
}

int Travel::ranks_from(int rank, int source, int direction) const {
  const Ranges& ranks = needed_by(source);
  const auto range = std::partition_point(ranks.begin(), ranks.end(), [&](const Range& r) { return r.end <= rank; });
  if (range == ranks.end() || range->begin > rank) return 0;
  return static_cast<int>(direction > 0 ? range->end - rank : rank - range->begin + 1);
}

int Travel::run(int rank, int direction, int source) const {
  const int all = mod((source - rank) * direction, world_size_);
  int count = 0;
  while (count < all) {
    const int more = ranks_from(mod(rank + count * direction, world_size_), source, direction);
    if (more == 0) break;
    count += more;
  }
  return std::min(count, all);
}

Ranges Travel::seen(int first, int count, int source) const {
  if (count == 0) return {};
  const std::vector<Span> keys = layout_.shard(source);
  if (count == 1) return keys_seen(mask_, layout_.shard(first), keys);
  if (!layout_.interleaves()) return keys_seen(mask_, layout_.shards_hull(first, count), keys);
  if (!mask_.has_window() && mask_.document_bounds().size() == 2) {
    // Later positions see more, and the last stripe of all is dealt to this rank.
    const int last = layout_.owner(layout_.seq_len() - 1).first;
    const int best = mod(last - first, world_size_) < count ? last : mod(first + count - 1, world_size_);
    const Span queries[] = {{layout_.shard(best).back().last(), 1, 1}};
    return keys_seen(mask_, queries, keys);
  }
  std::vector<Span> queries;
  for (int i = 0; i < count; ++i) {
    const std::vector<Span> more = layout_.shard(mod(first + i, world_size_));
    queries.insert(queries.end(), more.begin(), more.end());
  }
  return keys_seen(mask_, queries, keys);
}

}  // namespace orrery
