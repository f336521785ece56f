#include "strategy/travel.hpp"

#include <algorithm>

namespace orrery {
namespace {

// Places whose members are among these ranks.
Ranges places_of(const Group& group, const Ranges& ranks) {
  Ranges places;
  for (std::int64_t place = 0; place < group.size(); ++place) {
    const int rank = group.at(static_cast<int>(place));
    const auto range = std::partition_point(ranks.begin(), ranks.end(), [&](const Range& r) { return r.end <= rank; });
    if (range == ranks.end() || range->begin > rank) continue;
    if (!places.empty() && places.back().end == place) {
      places.back().end = place + 1;
    } else {
      places.push_back({place, place + 1});
    }
  }
  return places;
}

}  // namespace

const Ranges& Travel::needed_by(int source) const {
  std::optional<Ranges>& known = needed_by_[static_cast<std::size_t>(group_.place(source))];
  if (!known) {
    known = layout_.owners(positions_seeing(mask_, layout_.shard(source)));
    if (!group_.whole()) known = places_of(group_, *known);
  }
  return *known;
}

int Travel::places_from(int place, int source, int direction) const {
  const Ranges& places = needed_by(source);
  const auto range = std::partition_point(places.begin(), places.end(), [&](const Range& r) { return r.end <= place; });
  if (range == places.end() || range->begin > place) return 0;
  return static_cast<int>(direction > 0 ? range->end - place : place - range->begin + 1);
}

int Travel::run(int place, int direction, int source) const {
  const int size = group_.size(), all = mod((group_.place(source) - place) * direction, size);
  int count = 0;
  while (count < all) {
    const int more = places_from(mod(place + count * direction, size), source, direction);
    if (more == 0) break;
    count += more;
  }
  return std::min(count, all);
}

std::vector<Span> Travel::hull_of(int first, int count) const {
  if (group_.whole()) return layout_.shards_hull(first, count);
  std::vector<Span> all;
  for (int i = 0; i < count;) {
    const int rank = group_.at(first + i);
    int together = 1;
    while (i + together < count && group_.at(first + i + together) == rank + together) ++together;
    const std::vector<Span> more = layout_.shards_hull(rank, together);
    all.insert(all.end(), more.begin(), more.end());
    i += together;
  }
  return all;
}

int Travel::last_owner(int first, int count) const {
  if (group_.whole()) {
    const int last = layout_.owner(layout_.seq_len() - 1).first;
    return mod(last - first, group_.size()) < count ? last : group_.at(first + count - 1);
  }
  const auto last_of = [&](int rank) {
    const std::int64_t tokens = layout_.tokens(rank);
    return tokens > 0 ? layout_.position(rank, tokens - 1) : -1;
  };
  int best = group_.at(first);
  for (int i = 1; i < count; ++i) {
    const int rank = group_.at(first + i);
    if (last_of(rank) > last_of(best)) best = rank;
  }
  return best;
}

Ranges Travel::seen(int first, int count, int source) const {
  if (count == 0) return {};
  const std::vector<Span> keys = layout_.shard(source);
  if (count == 1) return keys_seen(mask_, layout_.shard(group_.at(first)), keys);
  if (!layout_.interleaves()) return keys_seen(mask_, hull_of(first, count), keys);
  if (!mask_.has_window() && mask_.document_bounds().size() == 2) {
    // Later positions see more.
    const Span queries[] = {{layout_.shard(last_owner(first, count)).back().last(), 1, 1}};
    return keys_seen(mask_, queries, keys);
  }
  std::vector<Span> queries;
  for (int i = 0; i < count; ++i) {
    const std::vector<Span> more = layout_.shard(group_.at(first + i));
    queries.insert(queries.end(), more.begin(), more.end());
  }
  return keys_seen(mask_, queries, keys);
}

}  // namespace orrery
