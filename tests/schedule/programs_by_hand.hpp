// Programs written by hand for the steps that no strategy of today uses: queries that move and come back as partial
// states, and an ordered scan over the ranks, forward and reversed. Cached prefill, decoding and the recurrent methods
// stand on these.
#pragma once

#include <vector>

#include "orrery/layout.hpp"
#include "schedule/builder.hpp"

namespace orrery::test {

// Every rank's queries visit all ranks; each folds in its own keys and sends the partial state back, where all are
// merged.
inline std::vector<RankProgram> pass_query(const AttentionProblem& problem, const Layout& layout) {
  const int world = layout.world_size();
  std::vector<RankProgram> programs;
  for (int rank = 0; rank < world; ++rank) {
    ProgramBuilder p(Pass::forward, rank, world);
    const std::int64_t tokens = layout.tokens(rank);
    const auto state = [&](std::string name, std::int64_t rows) {
      return p.buffer(std::move(name), BufferKind::state, BufferRole::workspace, Dtype::fp32, rows, problem.heads);
    };
    const int query = p.buffer("query", BufferKind::query, BufferRole::input, problem.dtype, tokens, problem.heads);
    const int keys =
        p.buffer("key_value", BufferKind::key_value, BufferRole::input, problem.dtype, tokens, problem.kv_heads);
    const int output = p.buffer("output", BufferKind::output, BufferRole::output, problem.dtype, tokens, problem.heads);
    const int own = state("state", tokens);
    const auto attend = [&](int queries, int from, int into) {
      const auto q = layout.shard(from), k = layout.shard(rank);
      if (pairs(problem.mask, q, k) == 0) return;
      p.add(Attend{p.all(queries), p.all(keys), p.all(into), q, k, false});
    };
    const auto meets = [&](int queries, int keys_of) {
      return pairs(problem.mask, layout.shard(queries), layout.shard(keys_of)) > 0;
    };
    Exchange out{{}, {}, 0}, back{{}, {}, 0};
    std::vector<int> visitors(static_cast<std::size_t>(world), -1), partials(visitors), returned(visitors);
    for (int peer = 0; peer < world; ++peer) {
      if (peer == rank) continue;
      const auto i = static_cast<std::size_t>(peer);
      if (meets(rank, peer)) {
        out.sends.push_back({p.all(query), peer});
        returned[i] = state("returned_" + std::to_string(peer), tokens);
        back.receives.push_back({p.all(returned[i]), peer});
      }
      if (meets(peer, rank)) {
        visitors[i] = p.buffer("query_" + std::to_string(peer), BufferKind::query, BufferRole::workspace, problem.dtype,
                               layout.tokens(peer), problem.heads);
        partials[i] = state("partial_" + std::to_string(peer), layout.tokens(peer));
        out.receives.push_back({p.all(visitors[i]), peer});
        back.sends.push_back({p.all(partials[i]), peer});
      }
    }
    p.add(out);
    p.add(Clear{p.all(own)});
    attend(query, rank, own);
    for (int peer = 0; peer < world; ++peer) {
      const auto i = static_cast<std::size_t>(peer);
      if (visitors[i] < 0) continue;
      p.add(Clear{p.all(partials[i])});
      attend(visitors[i], peer, partials[i]);
    }
    p.add(back);
    for (int buffer : returned) {
      if (buffer >= 0) p.add(Merge{p.all(own), p.all(buffer)});
    }
    p.add(Normalize{p.all(output), p.all(own)});
    programs.push_back(std::move(p).finish());
  }
  return programs;
}

// Two ranks, two lanes. Each rank sends its keys on one lane only after it has computed with those that come on the
// other, although nothing that it computes has a part in what it sends. Where lanes run ahead of computation all keys
// move at once; where an exchange begins behind the computation before it, each rank waits for the other.
inline std::vector<RankProgram> crossed_lanes(const AttentionProblem& problem, const Layout& layout) {
  std::vector<RankProgram> programs;
  for (int rank : {0, 1}) {
    const int peer = 1 - rank;
    ProgramBuilder p(Pass::forward, rank, 2);
    const auto buffer = [&](const char* name, BufferKind kind, BufferRole role, Dtype dtype, int of, int heads) {
      return p.buffer(name, kind, role, dtype, layout.tokens(of), heads);
    };
    const int query = buffer("query", BufferKind::query, BufferRole::input, problem.dtype, rank, problem.heads);
    const int own =
        buffer("key_value", BufferKind::key_value, BufferRole::input, problem.dtype, rank, problem.kv_heads);
    const int output = buffer("output", BufferKind::output, BufferRole::output, problem.dtype, rank, problem.heads);
    const int state = buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, rank, problem.heads);
    const int visiting =
        buffer("visiting", BufferKind::key_value, BufferRole::workspace, problem.dtype, peer, problem.kv_heads);
    p.add(Exchange{{}, {{p.all(visiting), peer}}, rank});
    p.add(Clear{p.all(state)});
    p.add(Attend{p.all(query), p.all(visiting), p.all(state), layout.shard(rank), layout.shard(peer), false});
    p.add(Attend{p.all(query), p.all(own), p.all(state), layout.shard(rank), layout.shard(rank), false});
    p.add(Exchange{{{p.all(own), peer}}, {}, peer});
    p.add(Normalize{p.all(output), p.all(state)});
    programs.push_back(std::move(p).finish());
  }
  return programs;
}

// The inclusive scan of one state a rank, from rank 0 up, or reversed from the last rank down.
inline std::vector<RankProgram> scan(int world, int heads, bool reversed) {
  std::vector<RankProgram> programs;
  for (int rank = 0; rank < world; ++rank) {
    ProgramBuilder p(Pass::forward, rank, world);
    const auto buffer = [&](const char* name, BufferRole role) {
      return p.buffer(name, BufferKind::scan, role, Dtype::fp32, 1, heads);
    };
    const int own = buffer("own", BufferRole::input), result = buffer("result", BufferRole::output);
    const int earlier_rank = reversed ? rank + 1 : rank - 1, later_rank = reversed ? rank - 1 : rank + 1;
    p.add(Copy{p.all(result), p.all(own)});
    if (earlier_rank >= 0 && earlier_rank < world) {
      const int earlier = buffer("earlier", BufferRole::workspace);
      p.add(Exchange{{}, {{p.all(earlier), earlier_rank}}, 0});
      p.add(Compose{p.all(result), p.all(earlier)});
    }
    if (later_rank >= 0 && later_rank < world) p.add(Exchange{{{p.all(result), later_rank}}, {}, 0});
    programs.push_back(std::move(p).finish());
  }
  return programs;
}

}  // namespace orrery::test
