#include "strategy/emit.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace orrery {

Range hull(const Ranges& ranges) {
  if (ranges.empty()) return {};
  return {ranges.front().begin, ranges.back().end};
}

Ranges clip(const Ranges& ranges, Range to) {
  Ranges clipped;
  for (const Range& r : ranges) {
    const Range part{std::max(r.begin, to.begin), std::min(r.end, to.end)};
    if (!part.empty()) clipped.push_back(part);
  }
  return clipped;
}

Ranges subtract(const Ranges& from, const Ranges& ranges) {
  Ranges rest;
  auto next = ranges.begin();
  for (Range left : from) {
    while (next != ranges.end() && next->end <= left.begin) ++next;
    for (auto r = next; r != ranges.end() && r->begin < left.end; ++r) {
      if (left.begin < r->begin) rest.push_back({left.begin, r->begin});
      left.begin = r->end;
    }
    if (!left.empty()) rest.push_back(left);
  }
  return rest;
}

bool covers(const Ranges& outer, const Ranges& inner) {
  return subtract(inner, outer).empty();
}

Ranges span_by_span(std::span<const Span> shard, const Ranges& rows) {
  Ranges cut;
  std::int64_t begin = 0;
  auto next = rows.begin();
  for (const Span& span : shard) {
    const Range own{begin, begin + span.count};
    while (next != rows.end() && next->end <= own.begin) ++next;
    for (auto r = next; r != rows.end() && r->begin < own.end; ++r) {
      cut.push_back({std::max(r->begin, own.begin), std::min(r->end, own.end)});
    }
    begin = own.end;
  }
  return cut;
}

std::int64_t rows_of(const std::vector<Run>& runs) {
  std::int64_t rows = 0;
  for (const Run& run : runs) rows += run.rows.size();
  return rows;
}

namespace {

// Slices of a shard, asked for from its front to its back.
class ShardWalk {
 public:
  explicit ShardWalk(std::vector<Span> shard) : shard_(std::move(shard)) {}

  void slice(Range rows, std::vector<Span>& into) {
    while (span_ < shard_.size() && begin_ + shard_[span_].count <= rows.begin) begin_ += shard_[span_++].count;
    std::int64_t begin = begin_;
    for (std::size_t i = span_; i < shard_.size() && begin < rows.end; begin += shard_[i++].count) {
      const Span& span = shard_[i];
      const std::int64_t from = std::max(rows.begin - begin, std::int64_t{0});
      into.push_back({span.at(from), std::min(rows.end - begin, span.count) - from, span.stride});
    }
  }

 private:
  std::vector<Span> shard_;
  std::size_t span_ = 0;
  std::int64_t begin_ = 0;  // the row at which that span begins
};

}  // namespace

std::vector<Span> place_by_position(std::vector<Run>& runs, const Layout& layout) {
  struct Placed {
    Run* run;
    std::size_t first, end;  // of its spans
  };
  std::vector<Span> spans;
  std::vector<Placed> by_position;
  by_position.reserve(runs.size());
  std::optional<ShardWalk> walk;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (i == 0 || runs[i].peer != runs[i - 1].peer) walk.emplace(layout.shard(runs[i].peer));
    const std::size_t first = spans.size();
    walk->slice(runs[i].rows, spans);
    by_position.push_back({&runs[i], first, spans.size()});
  }
  std::stable_sort(by_position.begin(), by_position.end(),
                   [&](const Placed& a, const Placed& b) { return spans[a.first].begin < spans[b.first].begin; });
  std::vector<Span> placed;
  placed.reserve(spans.size());
  std::int64_t at = 0;
  for (const Placed& p : by_position) {
    p.run->at = at;
    at += p.run->rows.size();
    for (std::size_t i = p.first; i < p.end; ++i) placed.push_back(spans[i]);
  }
  return placed;
}

ForwardBuffers add_forward_buffers(ProgramBuilder& program, const AttentionProblem& problem, std::int64_t tokens) {
  const Dtype dtype = problem.dtype;
  ForwardBuffers b;
  b.query = program.buffer("query", BufferKind::query, BufferRole::input, dtype, tokens, problem.heads);
  b.key_value = program.buffer("key_value", BufferKind::key_value, BufferRole::input, dtype, tokens, problem.kv_heads);
  b.output = program.buffer("output", BufferKind::output, BufferRole::output, dtype, tokens, problem.heads);
  b.state = program.buffer("state", BufferKind::state, BufferRole::workspace, Dtype::fp32, tokens, problem.heads);
  return b;
}

BackwardBuffers add_backward_buffers(ProgramBuilder& program, const AttentionProblem& problem, std::int64_t tokens) {
  using Kind = BufferKind;
  using Role = BufferRole;
  const Dtype dtype = problem.dtype;
  BackwardBuffers b;
  b.query = program.buffer("query", Kind::query, Role::input, dtype, tokens, problem.heads);
  b.key_value = program.buffer("key_value", Kind::key_value, Role::input, dtype, tokens, problem.kv_heads);
  b.output = program.buffer("output", Kind::output, Role::input, dtype, tokens, problem.heads);
  b.grad_output = program.buffer("grad_output", Kind::grad_output, Role::input, dtype, tokens, problem.heads);
  b.grad_query = program.buffer("grad_query", Kind::grad_query, Role::output, dtype, tokens, problem.heads);
  b.grad_key_value =
      program.buffer("grad_key_value", Kind::grad_key_value, Role::output, dtype, tokens, problem.kv_heads);
  b.delta = program.buffer("delta", Kind::delta, Role::workspace, Dtype::fp32, tokens, problem.heads);
  b.grad_query_sum =
      program.buffer("grad_query_sum", Kind::grad_query, Role::workspace, Dtype::fp32, tokens, problem.heads);
  return b;
}

namespace {

// The rectangle of a block that is left after the mask has been asked.
struct Rectangle {
  Range queries, keys;
  std::vector<Span> query_spans, key_spans;
  bool mask_free = false;
};

Rectangle cut(const Mask& mask, std::span<const Span> query_spans, std::span<const Span> key_spans) {
  Rectangle r;
  r.keys = hull(keys_seen(mask, query_spans, key_spans));
  r.queries = queries_seeing(mask, query_spans, key_spans);
  if (r.keys.empty() || r.queries.empty()) return {};
  r.query_spans = slice(query_spans, r.queries);
  r.key_spans = slice(key_spans, r.keys);
  r.mask_free = classify(mask, r.query_spans, r.key_spans) == Coverage::full;
  return r;
}

Slice block_slice(const BlockPlace& place, Range rows, int heads) {
  return {place.buffer, place.token_begin + rows.begin, rows.size(), place.head_begin, heads};
}

}  // namespace

void emit_attend(ProgramBuilder& program, const AttentionProblem& problem, const ForwardBuffers& buffers,
                 std::span<const Span> query_spans, std::span<const Span> key_spans, const BlockPlace& key_value,
                 KvHeads heads) {
  Rectangle r = cut(problem.mask, query_spans, key_spans);
  if (r.queries.empty()) return;
  const int group = problem.group();
  const auto rows = [&](int buffer) {
    return ProgramBuilder::heads(program.tokens(buffer, r.queries), heads.begin * group, heads.count * group);
  };
  program.add(Attend{{rows(buffers.query), block_slice(key_value, r.keys, heads.count), rows(buffers.state),
                      std::move(r.query_spans), std::move(r.key_spans), r.mask_free}});
}

void emit_attend_backward(ProgramBuilder& program, const AttentionProblem& problem, const BackwardBuffers& buffers,
                          std::span<const Span> query_spans, std::span<const Span> key_spans,
                          const BlockPlace& key_value, const BlockPlace& gradient, KvHeads heads) {
  Rectangle r = cut(problem.mask, query_spans, key_spans);
  if (r.queries.empty()) return;
  const int group = problem.group();
  const auto rows = [&](int buffer) {
    return ProgramBuilder::heads(program.tokens(buffer, r.queries), heads.begin * group, heads.count * group);
  };
  program.add(AttendBackward{
      {rows(buffers.query), block_slice(key_value, r.keys, heads.count), block_slice(gradient, r.keys, heads.count),
       std::move(r.query_spans), std::move(r.key_spans), r.mask_free},
      rows(buffers.grad_output),
      rows(buffers.output),
      rows(buffers.delta),
      rows(buffers.grad_query_sum)});
}

}  // namespace orrery
