#include "backend/coverage/judge.hpp"

#include <algorithm>
#include <map>
#include <optional>

#include "orrery/error.hpp"
#include "problem/row_index.hpp"

namespace orrery::coverage {
namespace {

// The rows that lie in more than one of the ranges, as ascending and disjoint ranges.
std::vector<Range> repeated(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> again;
  std::int64_t once = 0, twice = 0;  // where the rows end that were met so far, and those met again
  for (const Range& range : ranges) {
    const Range met{std::max(range.begin, twice), std::min(range.end, once)};
    if (!met.empty()) again.push_back(met);
    once = std::max(once, range.end);
    twice = std::max(twice, met.end);
  }
  return again;
}

// Pairs that two masks admit both, query by query.
std::int64_t common_pairs(const Mask& a, const Mask& b, const std::vector<Span>& queries,
                          const std::vector<Span>& keys) {
  std::int64_t count = 0;
  const auto count_keys = [&](Range one, Range other) {
    const Range both{std::max(one.begin, other.begin), std::min(one.end, other.end)};
    if (both.empty()) return;
    for (const Span& span : keys) count += tokens_before(span, both.end) - tokens_before(span, both.begin);
  };
  for (const Span& span : queries) {
    for (std::int64_t i = 0; i < span.count; ++i) {
      const VisibleKeys seen = a.visible(span.at(i)), other = b.visible(span.at(i));
      for (const Range& one : {seen.keys, seen.sinks}) {
        for (const Range& two : {other.keys, other.sinks}) count_keys(one, two);
      }
    }
  }
  return count;
}

// Of a cell into which masks of the program's own have let shares: each of these lets in what the problem's mask
// admits, and no two of them the same pairs. Slower than where there is one mask, for it goes query by query.
bool judge_masks(Context& context, Effects& rank, const std::string& where, const Cell& cell, bool rows_are_keys) {
  const std::vector<Span> own = context.shards[static_cast<std::size_t>(rank.program().rank)].at(cell.tokens());
  const auto common = [&](int a, int b, int source, const std::vector<Range>& rows) {
    const Mask &one = mask_of(rank.program(), context.problem, a), &other = mask_of(rank.program(), context.problem, b);
    const std::vector<Span> others = context.shards[static_cast<std::size_t>(source)].at(rows);
    return rows_are_keys ? common_pairs(one, other, others, own) : common_pairs(one, other, own, others);
  };
  const auto& shares = cell.value.shares;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const Share& s = *shares[i];
    if (common(s.mask, 0, s.rank, s.rows) != common(s.mask, s.mask, s.rank, s.rows)) {
      rank.report(Fault::wrong, -1, where, " has pairs with rank ", s.rank, " that mask ", s.mask,
                  " admits, and the problem's does not");
      return false;
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (shares[j]->rank != s.rank) continue;
      const std::vector<Range> both = intersection(shares[j]->rows, s.rows);
      if (common(shares[j]->mask, s.mask, s.rank, both) == 0) continue;
      rank.report(Fault::repeated, -1, where, " has rows ", both.front().begin, " to ", both.back().end, " of rank ",
                  s.rank, " more than once, by masks ", shares[j]->mask, " and ", s.mask);
      return false;
    }
  }
  return true;
}

void judge_cell(Context& context, Effects& rank, const Buffer& buffer, const Cell& cell) {
  const bool rows_are_keys = buffer.kind == BufferKind::grad_key_value;
  const std::string where =
      concat(buffer.name, "[", cell.token_begin, ":", cell.token_end, "]h[", cell.head_begin, ":", cell.head_end, "]");
  if (!cell.value.written) {
    rank.report(Fault::missing, -1, where, " is never written");
    return;
  }
  if (cell.value.identity.known() && cell.value.identity != Identity{rank.program().rank, 0, 0}) {
    rank.report(Fault::wrong, -1, where, " holds rows of rank ", cell.value.identity.rank, ", not its own");
    return;
  }
  // The cell's rows are queries; for dk and dv they are the keys.
  const auto shard = [&](int source) -> const Rows& { return context.shards[static_cast<std::size_t>(source)]; };
  const auto meeting = [&](int mask) {
    return Meeting(mask_of(rank.program(), context.problem, mask), shard(rank.program().rank).at(cell.tokens()),
                   rows_are_keys);
  };
  const Meeting own = meeting(0);
  std::map<int, std::vector<Range>> folded;  // by rank: rows that the cell's can meet, as often as they were folded in
  std::map<int, std::int64_t> visited;
  std::int64_t total = 0;
  bool own_masks = false;
  for (const auto& share : cell.value.shares) {
    std::optional<Meeting> other;
    if (share->mask != 0) other.emplace(meeting(share->mask));
    own_masks = own_masks || other;
    const Meeting& by = other ? *other : own;
    const std::vector<Range> met = intersection(shard(share->rank).within(by.reach()), share->rows);
    const std::int64_t here = by.pairs(shard(share->rank).at(met));
    visited[share->rank] += here;
    total += here;
    std::vector<Range>& all = folded[share->rank];
    all.insert(all.end(), met.begin(), met.end());
  }
  if (own_masks) {
    if (!judge_masks(context, rank, where, cell, rows_are_keys)) return;
    folded.clear();
  }
  for (auto& rows : folded) {
    const int source = rows.first;
    const std::vector<Range> again = repeated(rows.second);
    if (own.pairs(shard(source).at(again)) == 0) continue;
    const auto admitted = std::find_if(again.begin(), again.end(),
                                       [&](const Range& range) { return own.pairs(shard(source).at(range)) > 0; });
    rank.report(Fault::repeated, -1, where, " has rows ", admitted->begin, " to ", admitted->end, " of rank ", source,
                " more than once");
    return;
  }
  if (total == own.pairs_with_all()) return;
  for (int source = 0; source < static_cast<int>(context.shards.size()); ++source) {
    const std::int64_t wanted = own.pairs_with(shard(source));
    if (wanted == visited[source]) continue;
    rank.report(Fault::missing, -1, where, " has ", visited[source], " of the ", wanted,
                " pairs that the mask admits with rank ", source);
    return;
  }
}

bool same(const Composed& held, const Composed& claim) {
  if (held.positions.count != claim.positions.count) return false;
  if (held.positions.count == 0) return true;
  const bool same_positions =
      held.positions.begin == claim.positions.begin && held.positions.last() == claim.positions.last();
  return same_positions && held.direction * claim.direction >= 0;
}

// Each row must hold the positions that the buffer claims, composed in its direction.
void judge_scan(const Context& context, Effects& rank, const Buffer& buffer, const Cell& cell) {
  for (std::int64_t t = cell.token_begin; t < cell.token_end; ++t) {
    const std::string where = concat(buffer.name, "[", t, ":", t + 1, "]h[", cell.head_begin, ":", cell.head_end, "]");
    const std::optional<Composed> claim = claimed(context, rank.program(), buffer, t);
    const Composed& held = cell.value.composed;
    if (!cell.value.written) {
      rank.report(Fault::missing, -1, where, " is never written");
    } else if (!claim) {
      rank.report(Fault::wrong, -1, where, " belongs to no span of its shard");
    } else if (!same(held, *claim)) {
      rank.report(Fault::wrong, -1, where, " composes positions ", to_text(held), ", where its ",
                  to_string(buffer.scan), " scan is positions ", to_text(*claim));
    } else if (cell.value.identity.known() && cell.value.identity.head_shift != 0) {
      rank.report(Fault::wrong, -1, where, " holds another head's states");
    }
  }
}

}  // namespace

void judge_results(Context& context, Effects& rank) {
  const RankProgram& program = rank.program();
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    if (buffer.role != BufferRole::output) continue;
    rank.memory(static_cast<int>(i)).for_each([&](const Cell& cell) {
      context.lineage.result(cell.value.writer);
      if (buffer.kind == BufferKind::scan) {
        judge_scan(context, rank, buffer, cell);
      } else {
        judge_cell(context, rank, buffer, cell);
      }
    });
  }
}

void keep_as_results(Context& context, const Effects& rank) {
  for (std::size_t i = 0; i < rank.program().buffers.size(); ++i) {
    if (rank.program().buffers[i].role != BufferRole::kept) continue;
    rank.memory(static_cast<int>(i)).for_each([&](const Cell& cell) { context.lineage.result(cell.value.writer); });
  }
}

void judge_needless(Context& context, const std::vector<const RankProgram*>& programs, int world_size) {
  const std::vector<char> reached = context.lineage.reached();
  const auto& nodes = context.lineage.nodes();
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (reached[i]) continue;
    if (context.findings.full()) return;  // the text of an exchange is long
    const Lineage::Node& node = nodes[i];
    const RankProgram& program =
        *programs[static_cast<std::size_t>(node.pass == Pass::backward ? world_size + node.rank : node.rank)];
    std::string what = "no result needs this step";
    if (node.receive >= 0) {
      const auto& exchange = std::get<Exchange>(program.steps[static_cast<std::size_t>(node.step)]);
      const Transfer& t = exchange.receives[static_cast<std::size_t>(node.receive)];
      what = concat("no result needs ", to_text(program, t.slice), " from rank ", t.peer);
    }
    context.findings.add({Fault::needless, node.pass, node.rank, node.step, to_text(program, node.step) + ": " + what});
  }
}

}  // namespace orrery::coverage
