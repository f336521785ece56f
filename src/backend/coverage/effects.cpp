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

bool same_positions(const std::vector<Span>& a, const std::vector<Span>& b) {
  std::size_t i = 0, j = 0;
  std::int64_t used_a = 0, used_b = 0;  // tokens of the current span already compared
  while (i < a.size() && j < b.size()) {
    const std::int64_t count = std::min(a[i].count - used_a, b[j].count - used_b);
    if (count > 0 && a[i].at(used_a) != b[j].at(used_b)) return false;
    if (count > 1 && a[i].stride != b[j].stride) return false;
    used_a += count;
    used_b += count;
    if (used_a == a[i].count) {
      ++i;
      used_a = 0;
    }
    if (used_b == b[j].count) {
      ++j;
      used_b = 0;
    }
  }
  return token_count(std::span(a).subspan(i)) - used_a == 0 && token_count(std::span(b).subspan(j)) - used_b == 0;
}

Effects::Effects(Context& context, const RankProgram& program) : context_(context), program_(program) {
  for (const Buffer& b : program.buffers) {
    memory_.emplace_back(b.tokens, b.heads);
    if (b.role != BufferRole::input || b.tokens == 0) continue;
    Provenance rows;
    rows.written = true;
    rows.identity = {program.rank, 0, 0};
    if (b.kind != BufferKind::scan) {
      memory_.back().write({0, 0, b.tokens, 0, b.heads}, std::move(rows));
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
  const std::vector<Span>& shard = context.shards[static_cast<std::size_t>(program.rank)];
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
  return slice(context_.shards[static_cast<std::size_t>(identity.rank)],
               {tokens.begin + identity.token_shift, tokens.end + identity.token_shift});
}

bool Effects::holds(const Cell& cell, const std::vector<Span>& claimed) const {
  if (!cell.value.written || !cell.value.identity.known()) return false;
  const Identity& id = cell.value.identity;
  const auto& shard = context_.shards[static_cast<std::size_t>(id.rank)];
  if (cell.token_begin + id.token_shift < 0 || cell.token_end + id.token_shift > token_count(shard)) return false;
  return same_positions(positions(id, cell.tokens()), claimed);
}

// Calls fold(queries, keys) for every pair of a query cell and a key cell between which the mask, evaluated on the
// claimed positions, admits anything; both have then been found to hold what is claimed.
template <typename AttendStep, typename Fold>
void Effects::visit_blocks(const AttendStep& s, const Fold& fold) {
  const Mask& mask = context_.problem.mask;
  const int group = context_.problem.group();
  if (s.mask_free && pairs(mask, s.query_spans, s.key_spans) != s.query.tokens * s.key_value.tokens) {
    report(Fault::wrong, step_, "is not free of the mask");
  }
  const auto claimed = [](const std::vector<Span>& spans, const Slice& slice_of, const Cell& cell) {
    return slice(spans, {cell.token_begin - slice_of.token_begin, cell.token_end - slice_of.token_begin});
  };
  const std::vector<Cell> queries = memory(s.query).read(s.query);
  for (const Cell& keys : memory(s.key_value).read(s.key_value)) {
    const auto key_claim = claimed(s.key_spans, s.key_value, keys);
    for (const Cell& q : queries) {
      const auto query_claim = claimed(s.query_spans, s.query, q);
      if (pairs(mask, query_claim, key_claim) == 0) continue;
      if (!keys.value.written) {
        report(Fault::unwritten, step_, "reads keys ", keys.token_begin, " to ", keys.token_end, " that never arrived");
        continue;
      }
      if (!q.value.written) {
        report(Fault::unwritten, step_, "reads queries ", q.token_begin, " to ", q.token_end, " that nothing wrote");
        continue;
      }
      if (!holds(keys, key_claim)) {
        report(Fault::wrong, step_, "keys ", keys.token_begin, " to ", keys.token_end,
               " are not at the positions it claims");
        continue;
      }
      if (!holds(q, query_claim)) {
        report(Fault::wrong, step_, "queries ", q.token_begin, " to ", q.token_end,
               " are not at the positions it claims");
        continue;
      }
      // The query heads of the slice that read these KV heads.
      Cell part = q;
      part.head_begin = std::max(q.head_begin, s.query.head_begin + (keys.head_begin - s.key_value.head_begin) * group);
      part.head_end = std::min(q.head_end, s.query.head_begin + (keys.head_end - s.key_value.head_begin) * group);
      if (part.head_begin >= part.head_end) continue;
      const int query_head = part.head_begin + q.value.identity.head_shift;
      const int kv_head =
          s.key_value.head_begin + (part.head_begin - s.query.head_begin) / group + keys.value.identity.head_shift;
      if (query_head / group != kv_head) {
        report(Fault::wrong, step_, "query head ", query_head, " does not read KV head ", kv_head);
        continue;
      }
      context_.lineage.used(q.value.writer, node_);
      context_.lineage.used(keys.value.writer, node_);
      fold(part, keys);
    }
  }
}

// Adds a share to the accumulated rows of one identity, where the mask admits any of it.
void Effects::fold_rows(const Slice& rows, const Identity& identity, const Share& share, bool rows_are_keys) {
  const Mask& mask = context_.problem.mask;
  const auto shared = slice(context_.shards[static_cast<std::size_t>(share.rank)], share.rows);
  memory(rows).update(rows, [&](Cell& cell) {
    const auto own = positions(identity, cell.tokens());
    if ((rows_are_keys ? pairs(mask, shared, own) : pairs(mask, own, shared)) == 0) return;
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "adds to rows ", cell.token_begin, " to ", cell.token_end,
             " that were never cleared");
    } else if (cell.value.identity.known() && cell.value.identity != identity) {
      report(Fault::wrong, step_, "adds to rows of rank ", cell.value.identity.rank, " what belongs to rank ",
             identity.rank);
    } else {
      cell.value.identity = identity;
      cell.value.shares.push_back(share);
      context_.lineage.used(cell.value.writer, node_);
      cell.value.writer = node_;
    }
  });
}

namespace {

// The rows of `target` that stand where `cell` stands in `source`.
Slice corresponding(const Slice& target, const Slice& source, const Cell& cell) {
  return {target.buffer, target.token_begin + cell.token_begin - source.token_begin, cell.token_end - cell.token_begin,
          target.head_begin + cell.head_begin - source.head_begin, cell.head_end - cell.head_begin};
}

// The identity of those rows, seen from where they are in `target`.
Identity shifted(const Identity& identity, const Slice& target, const Slice& source) {
  return {identity.rank, identity.token_shift + source.token_begin - target.token_begin,
          identity.head_shift + source.head_begin - target.head_begin};
}

Share share_of(const Cell& cell) {
  const Identity& id = cell.value.identity;
  return {id.rank, {cell.token_begin + id.token_shift, cell.token_end + id.token_shift}};
}

}  // namespace

void Effects::apply(const Attend& s) {
  if (s.begins) clear(s.state);
  visit_blocks(s, [&](const Cell& queries, const Cell& keys) {
    fold_rows(corresponding(s.state, s.query, queries), shifted(queries.value.identity, s.state, s.query),
              share_of(keys), false);
  });
  if (s.output.given()) finish(s.output, s.state);
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

void Effects::apply(const AttendBackward& s) {
  const int group = context_.problem.group();
  if (s.begins) clear(s.grad_key_value);
  visit_blocks(s, [&](const Cell& queries, const Cell& keys) {
    const Identity& id = queries.value.identity;
    for (const Slice* rows : {&s.grad_output, &s.output, &s.delta}) {
      expect_rows_of(corresponding(*rows, s.query, queries), corresponding(s.query, s.query, queries), id);
    }
    fold_rows(corresponding(s.grad_query, s.query, queries), shifted(id, s.grad_query, s.query), share_of(keys), false);
    Cell kv = keys;
    kv.head_begin = s.key_value.head_begin + (queries.head_begin - s.query.head_begin) / group;
    kv.head_end = s.key_value.head_begin + (queries.head_end - s.query.head_begin) / group;
    fold_rows(corresponding(s.grad_key_value, s.key_value, kv),
              shifted(keys.value.identity, s.grad_key_value, s.key_value), share_of(queries), true);
  });
  if (s.result.given()) finish(s.result, s.grad_key_value);
}

void Effects::clear(const Slice& into) {
  Provenance empty;
  empty.written = true;
  empty.writer = node_;
  memory(into).write(into, std::move(empty));
}

// The last an attend does to rows that it owns; it need not store them, and nobody may count on what they hold.
void Effects::finish(const Slice& into, const Slice& rows) {
  copy(into, rows);
  memory(rows).write(rows, {});
}

void Effects::accumulate(const Slice& into, const Slice& from) {
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
    memory(into).write(place, std::move(cell.value));
  }
}

void Effects::apply(const Delta& s) {
  const std::vector<Cell> outputs = memory(s.output).read(s.output);
  for (const Cell& cell : outputs) {
    if (!cell.value.written || !cell.value.identity.known()) {
      report(Fault::unwritten, step_, "reads ", to_text(program_, s.output), ", which nothing wrote");
      continue;
    }
    expect_rows_of(corresponding(s.grad_output, s.output, cell), corresponding(s.output, s.output, cell),
                   cell.value.identity);
    Provenance rows;
    rows.written = true;
    rows.identity = shifted(cell.value.identity, s.into, s.output);
    rows.writer = node_;
    context_.lineage.used(cell.value.writer, node_);
    memory(s.into).write(corresponding(s.into, s.output, cell), std::move(rows));
  }
  if (s.cleared.given()) clear(s.cleared);
}

namespace {

// The positions of both, when those of `earlier` stand right before the others in the direction of the scan.
std::optional<Composed> compose(const Composed& later, const Composed& earlier) {
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

void Effects::apply(const Compose& s) {
  for (const Cell& cell : memory(s.earlier).read(s.earlier)) {
    if (!cell.value.written) {
      report(Fault::unwritten, step_, "reads a scan state that nothing wrote");
      continue;
    }
    const Identity identity = shifted(cell.value.identity, s.into, s.earlier);
    memory(s.into).update(corresponding(s.into, s.earlier, cell), [&](Cell& later) {
      if (!later.value.written) {
        report(Fault::unwritten, step_, "composes into a scan state that nothing wrote");
        return;
      }
      const auto both = compose(later.value.composed, cell.value.composed);
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
