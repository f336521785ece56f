// A group: ranks of a world, in an order, between which a strategy moves blocks as if there were no others. Queries of
// its members meet keys of its members. A member has a place, counted from 0 and around: behind the last place comes
// the first. Of the group of all ranks in their order, places are ranks.
//
// A world may be divided into groups, or a program may use several: the rows of a mesh and its columns, or the ranks of
// a node and one of each node.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/layout.hpp"

namespace orrery {

constexpr int mod(int a, int n) {
  return ((a % n) + n) % n;
}

class Group {
 public:
  // All ranks of a world, in their order.
  explicit Group(int world_size) : size_(world_size) {}
  Group(int world_size, std::vector<int> members)
      : size_(static_cast<int>(members.size())), members_(std::move(members)), places_(world_size, -1) {
    ORRERY_CHECK(size_ > 0, "a group of no ranks");
    for (int place = 0; place < size_; ++place) {
      const int rank = members_[place];
      ORRERY_CHECK(rank >= 0 && rank < world_size && places_[rank] < 0, "rank ", rank, " at place ", place,
                   " of a group in a world of ", world_size);
      places_[rank] = place;
    }
  }

  int size() const { return size_; }
  bool whole() const { return members_.empty(); }  // places are ranks
  int at(int place) const { return whole() ? mod(place, size_) : members_[mod(place, size_)]; }
  int place(int rank) const {
    if (whole()) return rank;
    ORRERY_CHECK(places_[rank] >= 0, "rank ", rank, " is no member of the group");
    return places_[rank];
  }
  // The member so many places behind a member, or before it.
  int from(int rank, int places) const { return at(place(rank) + places); }

 private:
  int size_;
  std::vector<int> members_;  // by place; empty for all ranks in their order
  std::vector<int> places_;   // by rank; -1 of no member
};

// Tokens of the member that owns most.
inline std::int64_t most_tokens(const Layout& layout, const Group& group) {
  if (group.whole()) return layout.max_tokens();
  std::int64_t most = 0;
  for (int place = 0; place < group.size(); ++place) most = std::max(most, layout.tokens(group.at(place)));
  return most;
}

}  // namespace orrery
