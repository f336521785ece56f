// A rank's program in the making, and what every strategy knows of its surroundings.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "strategy/travel.hpp"

namespace orrery {

// Key-values move in both passes, and gradients in the backward one: on lanes of their own, for neither waits for the
// other.
constexpr int kKeyValueLane = 0, kGradientLane = 1;

class StrategyProgram {
 protected:
  // Of a member of the group.
  StrategyProgram(const Placement& placement, const Group& group, Pass pass, int rank)
      : problem_(placement.problem),
        layout_(placement.layout),
        group_(group),
        travel_(placement, group_),
        size_(group.size()),
        rank_(rank),
        spans_(layout_.shard(rank)),
        tokens_(layout_.tokens(rank)),
        program_(pass, rank, placement.topology.world_size, problem_.head_dim, pass == Pass::forward ? 1 : 2) {}

  // The member so many places behind this rank.
  int rank_at(int places) const { return group_.from(rank_, places); }
  KvHeads all_heads() const { return {0, problem_.kv_heads}; }

  // One of two buffers like this that take turns, made when it is first asked for; their names end with _a and _b.
  int in_turn(std::array<int, 2>& pair, std::size_t turn, const Buffer& like) {
    int& id = pair[turn % 2];
    if (id < 0) {
      id = program_.buffer(like.name + (turn % 2 == 0 ? "_a" : "_b"), like.kind, like.role, like.dtype, like.tokens,
                           like.heads, like.order);
    }
    return id;
  }

  const AttentionProblem& problem_;
  const Layout& layout_;
  const Group group_;
  const Travel travel_;
  const int size_, rank_;  // the group's; this rank
  const std::vector<Span> spans_;
  const std::int64_t tokens_;
  ProgramBuilder program_;
};

}  // namespace orrery
