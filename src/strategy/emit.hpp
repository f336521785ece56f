// What strategies share: cutting an attention block down to the rectangle that the mask leaves of it, and the buffers
// every program has.
#pragma once

#include <span>
#include <vector>

#include "orrery/strategy.hpp"
#include "schedule/builder.hpp"

namespace orrery {

// Ranges of indices: sorted and disjoint.
using Ranges = std::vector<Range>;
Range hull(const Ranges& ranges);
Ranges clip(const Ranges& ranges, Range to);
Ranges subtract(const Ranges& from, const Ranges& ranges);  // what is in `from` alone
bool covers(const Ranges& outer, const Ranges& inner);
// Rows of a shard, cut where its spans end: for rows that come to lie by position, not as their owner has them.
Ranges span_by_span(std::span<const Span> shard, const Ranges& rows);
// Shards of more spans are not taken apart so.
constexpr std::size_t kMaxSpansApart = 16;

// Rows of a shard that move as one: whose they are or who has them, and the row of a buffer at which they begin.
struct Run {
  int peer = 0;
  Range rows;
  std::int64_t at = 0;
};
std::int64_t rows_of(const std::vector<Run>& runs);
// Places others' runs in a buffer in the order of their positions, so that a query sees one interval of them, as of a
// single block; returns the spans of the rows as they lie. The runs of a peer stand together and rise, none empty.
std::vector<Span> place_by_position(std::vector<Run>& runs, const Layout& layout);

// Heads [begin, begin + count) of the key-values; query heads follow from the group.
struct KvHeads {
  int begin = 0, count = 0;
};

// The buffers of a rank's forward and backward programs that belong to its caller or hold its own sums.
struct ForwardBuffers {
  int query, key_value, state, output;
};
ForwardBuffers add_forward_buffers(ProgramBuilder& program, const AttentionProblem& problem, std::int64_t tokens);

struct BackwardBuffers {
  int query, key_value, output, grad_output, delta;
  int grad_query_sum;              // fp32
  int grad_query, grad_key_value;  // the caller's
};
BackwardBuffers add_backward_buffers(ProgramBuilder& program, const AttentionProblem& problem, std::int64_t tokens);

// Where a block of keys lies: row token_begin and head head_begin of a buffer hold its first key and first KV head.
struct BlockPlace {
  int buffer = -1;
  std::int64_t token_begin = 0;
  int head_begin = 0;
};

// Adds the Attend of a rank's queries (all its tokens, at `query_spans`) with the keys at `key_spans`, cut to the
// queries and keys between which the mask admits anything; adds nothing where it admits nothing. An exact rectangle is
// marked mask-free.
void emit_attend(ProgramBuilder& program, const AttentionProblem& problem, const ForwardBuffers& buffers,
                 std::span<const Span> query_spans, std::span<const Span> key_spans, const BlockPlace& key_value,
                 KvHeads heads);

// The same for the backward pass; `gradient` is where the sums of the block's dk and dv lie.
void emit_attend_backward(ProgramBuilder& program, const AttentionProblem& problem, const BackwardBuffers& buffers,
                          std::span<const Span> query_spans, std::span<const Span> key_spans,
                          const BlockPlace& key_value, const BlockPlace& gradient, KvHeads heads);

}  // namespace orrery
