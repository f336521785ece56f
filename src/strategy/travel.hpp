// Who needs whose keys: the question every strategy asks of the mask and the layout. The answers are pure, so the two
// ends of a transfer, each asking for itself, agree on what is sent.
//
// On a ring the block of a source visits source+1, source+2, ... around to source-1. What a rank must be given is what
// it and those after it need ("ahead"); where the next rank needs nothing the block leaves the ring, and its source
// sends it afresh to the next rank that does.
#pragma once

#include <optional>
#include <vector>

#include "strategy/emit.hpp"

namespace orrery {

class Travel {
 public:
  explicit Travel(const Placement& placement)
      : mask_(placement.problem.mask),
        layout_(placement.layout),
        world_size_(placement.topology.world_size),
        needed_by_(static_cast<std::size_t>(world_size_)) {}

  // Rows of the source's shard that the rank's queries see.
  Ranges needed(int rank, int source) const { return seen(rank, 1, source); }
  bool needs(int rank, int source) const { return rank != source && ranks_from(rank, source) > 0; }

  // Rows of the source's shard seen by the rank and those after it on the ring, up to the first that sees none.
  Ranges ahead(int rank, int source) const { return seen(rank, run(rank, 1, source), source); }
  // The same the other way round: the rank and those before it, down to the first that sees none.
  Ranges behind(int rank, int source) const {
    const int count = run(rank, -1, source);
    return seen(mod(rank - count + 1, world_size_), count, source);
  }

 private:
  // The ranks that need any of a source's block, itself among them: found once for all of them, by the positions from
  // which its keys are seen.
  const Ranges& needed_by(int source) const;
  // How many ranks from this one up to the last of all, or down to the first, need the source's block without a gap.
  int ranks_from(int rank, int source, int direction = 1) const;
  // The same around the ring, up to the source.
  int run(int rank, int direction, int source) const;
  // Rows of the source's shard that `count` ranks see, the first of which is `first`.
  Ranges seen(int first, int count, int source) const;

  const Mask& mask_;
  const Layout& layout_;
  int world_size_;
  mutable std::vector<std::optional<Ranges>> needed_by_;  // of each source that was asked for: ranges of ranks
};

}  // namespace orrery
