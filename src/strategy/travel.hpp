// Who needs whose keys: the question every strategy asks of the mask and the layout. The answers are pure, so the two
// ends of a transfer, each asking for itself, agree on what is sent.
//
// On a ring over a group (strategy/group.hpp) the block of a source visits the members behind it, around to the one
// before it. What a rank must be given is what it and those behind it need ("ahead"); where the next one needs nothing
// the block leaves the ring, and its source sends it afresh to the next rank that does.
#pragma once

#include <optional>
#include <vector>

#include "strategy/emit.hpp"
#include "strategy/group.hpp"

namespace orrery {

class Travel {
 public:
  // The group outlives this.
  Travel(const Placement& placement, const Group& group)
      : mask_(placement.problem.mask),
        layout_(placement.layout),
        group_(group),
        needed_by_(static_cast<std::size_t>(group.size())) {}

  // Rows of the source's shard that the rank's queries see. Both are members, as everywhere here.
  Ranges needed(int rank, int source) const { return seen(group_.place(rank), 1, source); }
  bool needs(int rank, int source) const { return rank != source && places_from(group_.place(rank), source) > 0; }

  // Rows of the source's shard seen by the rank and those behind it on the ring, up to the first that sees none.
  Ranges ahead(int rank, int source) const {
    const int place = group_.place(rank);
    return seen(place, run(place, 1, source), source);
  }
  // The same the other way round: the rank and those before it, down to the first that sees none.
  Ranges behind(int rank, int source) const {
    const int place = group_.place(rank), count = run(place, -1, source);
    return seen(place - count + 1, count, source);
  }

 private:
  // The places whose ranks need any of a source's block, its own among them: found once for all of them, by the
  // positions from which its keys are seen.
  const Ranges& needed_by(int source) const;
  // How many places from this one up to the last of all, or down to the first, need the source's block without a gap.
  int places_from(int place, int source, int direction = 1) const;
  // The same around the ring, up to the source.
  int run(int place, int direction, int source) const;
  // Rows of the source's shard that `count` members see, from the first place around.
  Ranges seen(int first, int count, int source) const;
  // All that they own, for layouts whose shards are few spans: those of ranks that follow one another at once.
  std::vector<Span> hull_of(int first, int count) const;
  // Of them, where stripes are dealt round robin: one that owns the last position that any of them owns.
  int last_owner(int first, int count) const;

  const Mask& mask_;
  const Layout& layout_;
  const Group& group_;
  mutable std::vector<std::optional<Ranges>> needed_by_;  // by the place of each source that was asked for: of places
};

}  // namespace orrery
