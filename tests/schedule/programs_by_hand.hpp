// Programs written by hand for the steps that no strategy of today uses: queries that move and come back as partial
// states, and an ordered scan over the ranks, forward and reversed. Cached prefill, decoding and the recurrent methods
// stand on these.
#pragma once

#include <algorithm>
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
    ProgramBuilder p(Pass::forward, rank, world, problem.head_dim);
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
      p.add(Attend{{p.all(queries), p.all(keys), p.all(into), q, k, false}});
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
    p.apply(Operation::clear, {p.all(own)});
    attend(query, rank, own);
    for (int peer = 0; peer < world; ++peer) {
      const auto i = static_cast<std::size_t>(peer);
      if (visitors[i] < 0) continue;
      p.apply(Operation::clear, {p.all(partials[i])});
      attend(visitors[i], peer, partials[i]);
    }
    p.add(back);
    for (int buffer : returned) {
      if (buffer >= 0) p.apply(Operation::merge, {p.all(own), p.all(buffer)});
    }
    p.apply(Operation::normalize, {p.all(output), p.all(own)});
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
    ProgramBuilder p(Pass::forward, rank, 2, problem.head_dim, 2);
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
    p.apply(Operation::clear, {p.all(state)});
    p.add(Attend{{p.all(query), p.all(visiting), p.all(state), layout.shard(rank), layout.shard(peer), false}});
    p.add(Attend{{p.all(query), p.all(own), p.all(state), layout.shard(rank), layout.shard(rank), false}});
    p.add(Exchange{{{p.all(own), peer}}, {}, peer});
    p.apply(Operation::normalize, {p.all(output), p.all(state)});
    programs.push_back(std::move(p).finish());
  }
  return programs;
}

// One rank, whose attends name two masks that together are causal: the first document and the second, each by itself,
// by a mask of the program's own; and all keys of the first for the queries of the second, by the problem's.
inline RankProgram by_two_masks(const AttentionProblem& problem, std::int64_t cut, const char* own_mask, Pass pass) {
  ProgramBuilder p(pass, 0, 1, problem.head_dim);
  using Kind = BufferKind;
  using Role = BufferRole;
  const std::int64_t n = problem.seq_len;
  const auto buffer = [&](const char* name, Kind kind, Role role, int heads) {
    return p.buffer(name, kind, role, Dtype::fp32, n, heads);
  };
  const int own = p.mask(Mask::parse(own_mask, n));
  const int query = buffer("query", Kind::query, Role::input, problem.heads);
  const int keys = buffer("key_value", Kind::key_value, Role::input, problem.kv_heads);
  if (pass == Pass::forward) {
    const int output = buffer("output", Kind::output, Role::output, problem.heads);
    const int state = buffer("state", Kind::state, Role::workspace, problem.heads);
    p.apply(Operation::clear, {p.all(state)});
    p.add(Attend{{p.all(query), p.all(keys), p.all(state), {{0, n, 1}}, {{0, n, 1}}, false, own}});
    const Range late{cut, n}, early{0, cut};
    p.add(Attend{{p.tokens(query, late),
                  p.tokens(keys, early),
                  p.tokens(state, late),
                  {{cut, n - cut, 1}},
                  {{0, cut, 1}},
                  true}});
    p.apply(Operation::normalize, {p.all(output), p.all(state)});
    return std::move(p).finish();
  }
  const int output = buffer("output", Kind::output, Role::input, problem.heads);
  const int grad_output = buffer("grad_output", Kind::grad_output, Role::input, problem.heads);
  const int delta = buffer("delta", Kind::delta, Role::workspace, problem.heads);
  const int grad_query = buffer("grad_query", Kind::grad_query, Role::output, problem.heads);
  const int grad_keys = buffer("grad_key_value", Kind::grad_key_value, Role::output, problem.kv_heads);
  p.apply(Operation::delta, {p.all(delta), p.all(output), p.all(grad_output)});
  p.apply(Operation::clear, {p.all(grad_query)});
  p.apply(Operation::clear, {p.all(grad_keys)});
  const auto attend = [&](Range q, Range k, int mask) {
    p.add(AttendBackward{{p.tokens(query, q),
                          p.tokens(keys, k),
                          p.tokens(grad_keys, k),
                          {{q.begin, q.size(), 1}},
                          {{k.begin, k.size(), 1}},
                          mask == 0,
                          mask},
                         p.tokens(grad_output, q),
                         p.tokens(output, q),
                         p.tokens(delta, q),
                         p.tokens(grad_query, q)});
  };
  attend({0, n}, {0, n}, own);
  attend({cut, n}, {0, cut}, 0);
  return std::move(p).finish();
}

// A scan over the spans of all shards in the order of their positions, or reversed: one state a span, whoever owns it.
// A rank comes by as often as it has spans.
inline std::vector<RankProgram> scan(const AttentionProblem& problem, const Layout& layout, int heads, Scan claim) {
  const bool reversed = claim == Scan::exclusive_reversed || claim == Scan::inclusive_reversed;
  const bool inclusive = claim == Scan::inclusive || claim == Scan::inclusive_reversed;
  struct Place {
    std::int64_t begin, row;
    int rank;
  };
  std::vector<Place> places;  // in the order of the scan
  for (int rank = 0; rank < layout.world_size(); ++rank) {
    std::int64_t row = 0;
    for (const Span& span : layout.shard(rank)) places.push_back({span.begin, row++, rank});
  }
  std::sort(places.begin(), places.end(),
            [&](const Place& a, const Place& b) { return reversed ? a.begin > b.begin : a.begin < b.begin; });
  std::vector<RankProgram> programs;
  for (int rank = 0; rank < layout.world_size(); ++rank) {
    ProgramBuilder p(Pass::forward, rank, layout.world_size(), problem.head_dim);
    const auto rows = static_cast<std::int64_t>(layout.shard(rank).size());
    const auto buffer = [&](const char* name, BufferRole role, Scan of) {
      return p.buffer(name, BufferKind::scan, role, Dtype::fp32, rows, heads, RowOrder::by_head, of);
    };
    const int own = buffer("own", BufferRole::input, Scan::own), result = buffer("result", BufferRole::output, claim);
    const int earlier = buffer("earlier", BufferRole::workspace, Scan::own);
    // What is handed on: up to and with this span. Of an inclusive scan that is the result.
    const int total = inclusive ? result : buffer("total", BufferRole::workspace, Scan::own);
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (places[i].rank != rank) continue;
      const auto row = [&](int of, std::int64_t t) { return p.tokens(of, {t, t + 1}); };
      const std::int64_t t = places[i].row;
      const bool first = i == 0, last = i + 1 == places.size();
      Slice before = row(earlier, t);
      if (!first && places[i - 1].rank == rank) before = row(total, places[i - 1].row);
      if (!first && places[i - 1].rank != rank) p.add(Exchange{{}, {{before, places[i - 1].rank}}, 0});
      if (!inclusive && first) p.apply(Operation::clear, {row(result, t)});
      if (!inclusive && !first) p.apply(Operation::copy, {row(result, t), before});
      if (last && !inclusive) continue;
      p.apply(Operation::copy, {row(total, t), row(own, t)});
      if (!first) p.apply(Operation::compose, {row(total, t), before});
      if (!last && places[i + 1].rank != rank) p.add(Exchange{{{row(total, t), places[i + 1].rank}}, {}, 0});
    }
    programs.push_back(std::move(p).finish());
  }
  return programs;
}

}  // namespace orrery::test
