// Who needs whose keys: the question every strategy asks of the mask and the layout. The answers are pure, so the two
// ends of a transfer, each asking for itself, agree on what is sent.
//
// On a ring the block of a source visits source+1, source+2, ... around to source-1. What a rank must be given is what
// it and those after it need ("ahead"); where the next rank needs nothing the block leaves the ring, and its source
// sends it afresh to the next rank that does.
#pragma once

#include "strategy/emit.hpp"

namespace orrery {

class Travel {
 public:
  explicit Travel(const Placement& placement)
      : mask_(placement.problem.mask),
        layout_(placement.layout),
        world_size_(placement.topology.world_size),
        gaps_(mask_.has_window() || mask_.document_bounds().size() > 2 || mask_.seq_len() < 4 * world_size_) {}

  // Rows of the source's shard that the rank's queries see.
  Ranges needed(int rank, int source) const { return seen(rank, 1, source); }
  bool needs(int rank, int source) const { return rank != source && !needed(rank, source).empty(); }

  // Rows of the source's shard seen by the rank and those after it on the ring, up to the first that sees none.
  Ranges ahead(int rank, int source) const { return seen(rank, run(rank, 1, source), source); }
  // The same the other way round: the rank and those before it, down to the first that sees none.
  Ranges behind(int rank, int source) const {
    const int count = run(rank, -1, source);
    return seen(mod(rank - count + 1, world_size_), count, source);
  }

 private:
  // How many ranks from this one on, in this direction, need the source's block without a gap. Where a mask cannot
  // leave gaps, all ranks up to the source are as good an answer, and need no walk around the ring.
  int run(int rank, int direction, int source) const {
    const int all = mod((source - rank) * direction, world_size_);
    if (!gaps_) return all;
    int count = 0;
    while (count < all && needs(mod(rank + count * direction, world_size_), source)) ++count;
    return count;
  }

  Ranges seen(int first, int count, int source) const {
    if (count == 0) return {};
    auto queries = layout_.shard(first);
    if (count > 1 && !gaps_) {
      queries = layout_.shards_hull(first, count);
    } else {
      for (int i = 1; i < count; ++i) {
        const auto more = layout_.shard(mod(first + i, world_size_));
        queries.insert(queries.end(), more.begin(), more.end());
      }
    }
    return keys_seen(mask_, queries, layout_.shard(source));
  }

  const Mask& mask_;
  const Layout& layout_;
  int world_size_;
  bool gaps_;  // a rank may need nothing of a block that ranks before and after it need
};

}  // namespace orrery
