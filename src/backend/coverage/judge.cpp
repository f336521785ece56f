#include "backend/coverage/judge.hpp"

#include <algorithm>

#include "orrery/error.hpp"

namespace orrery::coverage {
namespace {

// Counts the pairs between a cell's rows and some rows of a shard; for dk and dv the cell's rows are the keys.
class PairCounter {
 public:
  PairCounter(const Context& context, const Effects& rank, const Cell& cell, bool rows_are_keys)
      : context_(context),
        rows_are_keys_(rows_are_keys),
        rows_(slice(context.shards[static_cast<std::size_t>(rank.program().rank)], cell.tokens())) {}

  std::int64_t with(const Share& share) const {
    return with(slice(context_.shards[static_cast<std::size_t>(share.rank)], share.rows));
  }
  std::int64_t with(const std::vector<Span>& others) const {
    return rows_are_keys_ ? pairs(context_.problem.mask, others, rows_) : pairs(context_.problem.mask, rows_, others);
  }
  const std::vector<Span>& rows() const { return rows_; }

 private:
  const Context& context_;
  bool rows_are_keys_;
  std::vector<Span> rows_;
};

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
  const PairCounter count(context, rank, cell, rows_are_keys);
  std::vector<Share> shares = cell.value.shares;
  std::sort(shares.begin(), shares.end(), [](const Share& a, const Share& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.rows.begin < b.rows.begin;
  });
  std::vector<std::int64_t> visited(context.shards.size(), 0);
  std::int64_t total = 0, end = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const Share& s = shares[i];
    const std::int64_t here = count.with(s);
    visited[static_cast<std::size_t>(s.rank)] += here;
    total += here;
    if (i == 0 || shares[i - 1].rank != s.rank) end = 0;
    const Range again{s.rows.begin, std::min(end, s.rows.end)};
    if (!again.empty() && count.with(Share{s.rank, again}) > 0) {
      rank.report(Fault::repeated, -1, where, " has rows ", again.begin, " to ", again.end, " of rank ", s.rank,
                  " more than once");
      return;
    }
    end = std::max(end, s.rows.end);
  }
  if (total == count.with(std::vector<Span>{{0, context.problem.seq_len, 1}})) return;
  for (std::size_t source = 0; source < context.shards.size(); ++source) {
    const std::int64_t wanted = count.with(context.shards[source]);
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
    for (const Cell& cell : rank.memory(static_cast<int>(i)).cells()) {
      context.lineage.result(cell.value.writer);
      if (buffer.kind == BufferKind::scan) {
        judge_scan(context, rank, buffer, cell);
      } else {
        judge_cell(context, rank, buffer, cell);
      }
    }
  }
}

void keep_as_results(Context& context, const Effects& rank) {
  for (std::size_t i = 0; i < rank.program().buffers.size(); ++i) {
    if (rank.program().buffers[i].role != BufferRole::kept) continue;
    for (const Cell& cell : rank.memory(static_cast<int>(i)).cells()) context.lineage.result(cell.value.writer);
  }
}

void judge_needless(Context& context, const std::vector<const RankProgram*>& programs, int world_size) {
  const std::vector<char> reached = context.lineage.reached();
  const auto& nodes = context.lineage.nodes();
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (reached[i]) continue;
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
