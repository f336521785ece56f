#include "strategy/emit.hpp"

#include <algorithm>

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

Ranges subtract(Range whole, const Ranges& ranges) {
  Ranges rest;
  for (const Range& r : ranges) {
    if (r.end <= whole.begin || r.begin >= whole.end) continue;
    if (whole.begin < r.begin) rest.push_back({whole.begin, r.begin});
    whole.begin = r.end;
  }
  if (!whole.empty()) rest.push_back(whole);
  return rest;
}

bool covers(const Ranges& outer, const Ranges& inner) {
  return std::all_of(inner.begin(), inner.end(), [&](const Range& r) { return subtract(r, outer).empty(); });
}

Ranges span_by_span(std::span<const Span> shard, const Ranges& rows) {
  Ranges cut;
  std::int64_t begin = 0;
  for (const Span& span : shard) {
    for (const Range& r : clip(rows, {begin, begin + span.count})) cut.push_back(r);
    begin += span.count;
  }
  return cut;
}

std::int64_t rows_of(const std::vector<Run>& runs) {
  std::int64_t rows = 0;
  for (const Run& run : runs) rows += run.rows.size();
  return rows;
}

std::vector<Span> place_by_position(std::vector<Run>& runs, const Layout& layout) {
  std::vector<Run*> by_position;
  by_position.reserve(runs.size());
  for (Run& run : runs) by_position.push_back(&run);
  const auto position = [&](const Run* run) { return layout.position(run->peer, run->rows.begin); };
  std::stable_sort(by_position.begin(), by_position.end(),
                   [&](const Run* a, const Run* b) { return position(a) < position(b); });
  std::vector<Span> spans;
  std::int64_t at = 0;
  for (Run* run : by_position) {
    run->at = at;
    at += run->rows.size();
    for (const Span& span : slice(layout.shard(run->peer), run->rows)) spans.push_back(span);
  }
  return spans;
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
  program.add(Attend{rows(buffers.query), block_slice(key_value, r.keys, heads.count), rows(buffers.state),
                     std::move(r.query_spans), std::move(r.key_spans), r.mask_free});
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
  program.add(AttendBackward{rows(buffers.query), block_slice(key_value, r.keys, heads.count),
                             rows(buffers.grad_output), rows(buffers.output), rows(buffers.delta),
                             rows(buffers.grad_query_sum), block_slice(gradient, r.keys, heads.count),
                             std::move(r.query_spans), std::move(r.key_spans), r.mask_free});
}

}  // namespace orrery
