#include "backend/coverage/effects.hpp"

#include <algorithm>

#include "orrery/error.hpp"

namespace orrery::coverage {

std::vector<char> Lineage::reached() const {
  std::vector<std::size_t> offsets(nodes_.size() + 1, 0);
  for (const auto& [user, used] : edges_) ++offsets[static_cast<std::size_t>(user) + 1];
  for (std::size_t i = 1; i < offsets.size(); ++i) offsets[i] += offsets[i - 1];
  std::vector<int> used_by(edges_.size());
  std::vector<std::size_t> next(offsets.begin(), offsets.end() - 1);
  for (const auto& [user, used] : edges_) used_by[next[static_cast<std::size_t>(user)]++] = used;

  std::vector<char> reached(nodes_.size(), 0);
  std::vector<int> open;
  const auto visit = [&](int node) {
    if (!reached[static_cast<std::size_t>(node)]) {
      reached[static_cast<std::size_t>(node)] = 1;
      open.push_back(node);
    }
  };
  for (int node : results_) visit(node);
  while (!open.empty()) {
    const auto node = static_cast<std::size_t>(open.back());
    open.pop_back();
    for (std::size_t i = offsets[node]; i < offsets[node + 1]; ++i) visit(used_by[i]);
  }
  return reached;
}

Effects::Effects(Context& context, const RankProgram& program) : context_(context), program_(program) {
  for (const Buffer& b : program.buffers) {
    memory_.emplace_back(b.tokens, b.heads);
    if (b.role != BufferRole::input || b.tokens == 0) continue;
    Provenance rows;
    rows.written = true;
    rows.identity = {program.rank, 0, 0};
    if (b.kind != BufferKind::scan) {
      memory_.back().write({0, 0, b.tokens, 0, b.heads}, rows);
      continue;
    }
    for (std::int64_t t = 0; t < b.tokens; ++t) {
      const auto composed = claimed(context, program, b, t);
      if (!composed) break;
      rows.composed = *composed;
      memory_.back().write({0, t, 1, 0, b.heads}, rows);
    }
  }
}

std::optional<Composed> claimed(const Context& context, const RankProgram& program, const Buffer& buffer,
                                std::int64_t row) {
  const std::vector<Span>& shard = context.shards[static_cast<std::size_t>(program.rank)].spans();
  if (row >= static_cast<std::int64_t>(shard.size())) return {};
  const Span& span = shard[static_cast<std::size_t>(row)];
  const std::int64_t begin = span.begin, end = span.last() + 1, all = context.problem.seq_len;
  switch (buffer.scan) {
    case Scan::own:
      return Composed{span, 0};
    case Scan::exclusive:
      return Composed{{0, begin, 1}, 1};
    case Scan::inclusive:
      return Composed{{0, end, 1}, 1};
    case Scan::exclusive_reversed:
      return Composed{{end, all - end, 1}, -1};
    case Scan::inclusive_reversed:
      return Composed{{begin, all - begin, 1}, -1};
  }
  return {};
}

void Effects::inherit(const Effects& earlier) {
  for (std::size_t i = 0; i < program_.buffers.size(); ++i) {
    if (program_.buffers[i].role != BufferRole::kept) continue;
    const int from = earlier.program_.find(program_.buffers[i].name);
    if (from < 0 || earlier.program_.buffers[static_cast<std::size_t>(from)].role != BufferRole::kept) {
      report(Fault::unwritten, -1, "nothing is kept under the name ", program_.buffers[i].name);
      continue;
    }
    memory_[i] = earlier.memory_[static_cast<std::size_t>(from)];
  }
}

void Effects::apply(int step, int node) {
  step_ = step;
  node_ = node;
  std::visit([&](const auto& s) { apply(s); }, program_.steps[static_cast<std::size_t>(step)]);
}

std::vector<Span> Effects::positions(const Identity& identity, Range tokens) const {
  return context_.shards[static_cast<std::size_t>(identity.rank)].at(identity.rows(tokens));
}

void Effects::expect_rows_of(const Slice& rows, const Slice& query, const Identity& identity) {
  for (const Cell& cell : memory(rows).read(rows)) {
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads ", to_text(program_, rows), ", which nothing wrote");
    } else if (cell.value.identity != shifted(identity, rows, query)) {
      report(Fault::wrong, step_, to_text(program_, rows), " are not rows of its queries");
    }
    context_.lineage.used(cell.value.writer, node_);
  }
}

void Effects::apply(const Apply& s) {
  const auto rows = row_of(s.operation).operands();
  std::vector<Slice> read;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].use == Use::reads && s.operands[i].given()) read.push_back(s.operands[i]);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Slice& operand = s.operands[i];
    if (!operand.given()) continue;
    switch (rows[i].use) {
      case Use::reads:
        break;
      case Use::clears:
        clear(operand);
        break;
      case Use::copies:
        copy(operand, read[0]);
        break;
      case Use::derives:
        derive(operand, read);
        break;
      case Use::sums:
        sum(operand, read[0]);
        break;
      case Use::composes:
        compose(operand, read[0]);
        break;
      case Use::keeps:
        keep(operand, read);
        break;
    }
  }
}

void Effects::clear(const Slice& into) {
  Provenance empty;
  empty.written = true;
  empty.writer = node_;
  memory(into).write(into, empty);
}

// The last an attend does to rows that it owns; it need not store them, and nobody may count on what they hold.
void Effects::finish(const Attending& s) {
  if (!s.results.given()) return;
  copy(s.results, s.owned);
  memory(s.owned).write(s.owned, {});
}

void Effects::sum(const Slice& into, const Slice& from) {
  for (const Cell& cell : memory(from).read(from)) {
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads rows ", cell.token_begin, " to ", cell.token_end, " that nothing wrote");
      continue;
    }
    // The neutral element adds nothing, but it has to be there: zeros between rows that are added in one step.
    if (!cell.value.identity.known()) {
      context_.lineage.used(cell.value.writer, node_);
      continue;
    }
    const Identity identity = shifted(cell.value.identity, into, from);
    memory(into).update(corresponding(into, from, cell), [&](Cell& sum) {
      if (!sum.value.written) {
        report(Fault::unwritten, step_, "adds to rows that were never cleared");
      } else if (sum.value.identity.known() && sum.value.identity != identity) {
        report(Fault::wrong, step_, "adds rows of rank ", identity.rank, " to rows of rank ", sum.value.identity.rank);
      } else {
        sum.value.identity = identity;
        sum.value.shares.insert(sum.value.shares.end(), cell.value.shares.begin(), cell.value.shares.end());
        context_.lineage.used(cell.value.writer, node_);
        context_.lineage.used(sum.value.writer, node_);
        sum.value.writer = node_;
      }
    });
  }
}

void Effects::copy(const Slice& into, const Slice& from) {
  for (Cell& cell : memory(from).read(from)) {
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads rows ", cell.token_begin, " to ", cell.token_end, " that nothing wrote");
    }
    const Slice place = corresponding(into, from, cell);
    if (cell.value.identity.known()) cell.value.identity = shifted(cell.value.identity, into, from);
    context_.lineage.used(cell.value.writer, node_);
    cell.value.writer = node_;
    memory(into).write(place, cell.value);
  }
}

void Effects::derive(const Slice& into, std::span<const Slice> from) {
  const std::vector<Cell> cells = memory(from[0]).read(from[0]);
  for (const Cell& cell : cells) {
    if (!cell.value.written || !cell.value.identity.known()) {
      report(Fault::unwritten, step_, "reads ", to_text(program_, from[0]), ", which nothing wrote");
      continue;
    }
    for (const Slice& other : from.subspan(1)) {
      expect_rows_of(corresponding(other, from[0], cell), corresponding(from[0], from[0], cell), cell.value.identity);
    }
    Provenance rows;
    rows.written = true;
    rows.identity = shifted(cell.value.identity, into, from[0]);
    rows.writer = node_;
    context_.lineage.used(cell.value.writer, node_);
    memory(into).write(corresponding(into, from[0], cell), rows);
  }
}

void Effects::keep(const Slice& into, std::span<const Slice> beside) {
  for (const Slice& other : beside) {
    for (const Cell& cell : memory(other).read(other)) {
      if (!cell.value.written || !cell.value.identity.known()) {
        report(Fault::unwritten, step_, "reads ", to_text(program_, other), ", which nothing wrote");
        continue;
      }
      context_.lineage.used(cell.value.writer, node_);
      const Identity identity = shifted(cell.value.identity, into, other);
      memory(into).update(corresponding(into, other, cell), [&](Cell& kept) {
        if (!kept.value.identity.known()) {
          kept.value.identity = identity;
        } else if (kept.value.identity != identity) {
          report(Fault::wrong, step_, to_text(program_, other), " are not rows of ", to_text(program_, into));
        }
      });
    }
  }
  memory(into).update(into, [&](Cell& kept) {
    if (!kept.value.written) report(Fault::unwritten, step_, "changes rows that nothing wrote");
    context_.lineage.used(kept.value.writer, node_);
    kept.value.writer = node_;
  });
}

namespace {

// The positions of both, when those of `earlier` stand right before the others in the direction of the scan.
std::optional<Composed> both_of(const Composed& later, const Composed& earlier) {
  if (earlier.positions.count == 0) return later;
  if (later.positions.count == 0) return earlier;
  const auto goes = [&](int direction) {
    return later.direction * direction >= 0 && earlier.direction * direction >= 0;
  };
  for (const Composed* each : {&later, &earlier}) {
    if (each->positions.count > 1 && each->positions.stride != 1) return {};  // others' positions lie between
  }
  const std::int64_t count = later.positions.count + earlier.positions.count;
  if (goes(1) && earlier.positions.last() + 1 == later.positions.begin) {
    return Composed{{earlier.positions.begin, count, 1}, 1};
  }
  if (goes(-1) && later.positions.last() + 1 == earlier.positions.begin) {
    return Composed{{later.positions.begin, count, 1}, -1};
  }
  return {};
}

}  // namespace

void Effects::compose(const Slice& into, const Slice& earlier) {
  for (const Cell& cell : memory(earlier).read(earlier)) {
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads a scan state that nothing wrote");
      continue;
    }
    const Identity identity = shifted(cell.value.identity, into, earlier);
    memory(into).update(corresponding(into, earlier, cell), [&](Cell& later) {
      if (!later.value.written) {
        report(Fault::unwritten, step_, "composes into a scan state that nothing wrote");
        return;
      }
      const auto both = both_of(later.value.composed, cell.value.composed);
      if (!both) {
        report(Fault::wrong, step_, "composes positions ", to_text(later.value.composed), " right after positions ",
               to_text(cell.value.composed));
        return;
      }
      if (!later.value.identity.known()) {
        later.value.identity = identity;
      } else if (cell.value.identity.known() && later.value.identity.head_shift != identity.head_shift) {
        report(Fault::wrong, step_, "composes states of different heads");
      }
      later.value.composed = *both;
      context_.lineage.used(cell.value.writer, node_);
      context_.lineage.used(later.value.writer, node_);
      later.value.writer = node_;
    });
  }
}

}  // namespace orrery::coverage
