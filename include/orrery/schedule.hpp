// A schedule is data: for each rank a list of buffers and a list of typed steps. Steps read top to bottom with
// sequential meaning; what may overlap is derived from the slices they read and write (executor/hazards). The same
// program is run on real memory, proved by the checker, and timed by the trace, by the one executor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "orrery/mask.hpp"
#include "orrery/operations.hpp"
#include "orrery/problem.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

enum class Pass { forward, backward };
std::string_view to_string(Pass pass);

// Who owns a buffer's memory, and how long it lives.
enum class BufferRole {
  input,      // the caller's, read only
  output,     // the caller's
  workspace,  // the plan's, for one run
  kept,       // the plan's, from a forward run to the backward run after it; matched by name
};

// The order in which rows lie in memory and travel. By head, all rows of a head lie together, and some heads are one
// contiguous piece. By token, all heads of a token lie together, and some tokens are one contiguous piece.
enum class RowOrder { by_head, by_token };

// Which positions the rows of a scan buffer compose. Row t of a rank belongs to span t of its shard. An input has what
// this says; of an output it is a claim, which the checker holds against what was composed, and in which order.
enum class Scan {
  own,                 // the span's, as the caller composed them
  exclusive,           // all before the span, ascending; none before position 0
  inclusive,           // those, and the span's
  exclusive_reversed,  // all behind the span, descending from the last one
  inclusive_reversed,  // those, and the span's
};
std::string_view to_string(Scan scan);

// What the rows of a buffer are rows of.
enum class RowSpace {
  sequence,    // tokens of the sequence, as the layout shares them out
  entries,     // of a memory that stands for the sequence, or for parts of it
  parameters,  // learned numbers, the same on every rank
};
std::string_view to_string(RowSpace space);

struct Buffer {
  std::string name;
  BufferKind kind = BufferKind::query;
  BufferRole role = BufferRole::workspace;
  Dtype dtype = Dtype::fp32;  // of the components that are not fp32 in any case
  std::int64_t tokens = 0;
  int heads = 0;
  std::int64_t width = 0;              // columns of a row; of attention: head_dim
  RowOrder order = RowOrder::by_head;  // of the plan's own; a caller's has the strides it has
  Scan scan = Scan::own;               // of a caller's scan
  RowSpace space = RowSpace::sequence;
};

// The tensors of a buffer, in the order of its kind's row (orrery/operations.hpp).
struct Component {
  std::string_view name;
  Dtype dtype;
  std::int64_t width;
};
std::vector<Component> components(const Buffer& buffer);
// Bytes of one row of a buffer, over all its components and the whole batch.
std::int64_t row_bytes(const Buffer& buffer, const AttentionProblem& problem);

// Rows [token_begin, +tokens) of heads [head_begin, +heads) of a buffer; always the whole batch.
struct Slice {
  int buffer = -1;
  std::int64_t token_begin = 0, tokens = 0;
  int head_begin = 0, heads = 0;

  bool given() const { return buffer >= 0; }  // where a step may do without
  friend bool operator==(const Slice&, const Slice&) = default;
};
bool overlap(const Slice& a, const Slice& b);
bool contains(const Slice& outer, const Slice& inner);

struct Transfer {
  Slice slice;
  int peer = 0;
  friend bool operator==(const Transfer&, const Transfer&) = default;
};

// Transfers that progress together. Between two ranks, on one lane, the n-th send is the n-th receive. Both ends have
// the same order.
struct Exchange {
  std::vector<Transfer> sends = {}, receives = {};
  int lane = 0;
  RowOrder order = RowOrder::by_head;
};

// What attends, in either pass: queries with keys. The spans say which positions the rows of the slices are; the mask
// is evaluated on them. `mask_free` claims that every query sees every key.
struct Attending {
  Slice query, key_value;
  Slice owned;  // what no other step adds to meanwhile: the queries' state forward, the gradients of the keys backward
  std::vector<Span> query_spans, key_spans;
  bool mask_free = false;
  int mask = 0;  // which of the program's (mask_of() below)
  // Of a fused program (fuse() below).
  bool begins = false;  // clears the owned rows first, which need hold nothing yet
  Slice results = {};  // when given: normalizes or copies the owned rows into it last, which then hold nothing any more
};

// Folds a key-value block into the running state of some queries.
struct Attend : Attending {};

// Adds one block's share to dq, dk and dv, from the final lse (in `output`) and delta.
struct AttendBackward : Attending {
  Slice grad_output, output, delta, grad_query;
};

// Any other computation: an operation on its operands, which stand in the order of its row. Optional ones need not be
// given.
struct Apply {
  Operation operation;
  Slice operands[kMostOperands] = {};

  // By name.
  const Slice& at(std::string_view operand) const;
  Slice& at(std::string_view operand);
};

using Step = std::variant<Exchange, Attend, AttendBackward, Apply>;

// The step as what attends, or as that operation; null for other steps.
const Attending* attending(const Step& step);
Attending* attending(Step& step);
const Apply* applying(const Step& step, Operation operation);
Apply* applying(Step& step, Operation operation);

struct RankProgram {
  Pass pass = Pass::forward;
  int rank = 0;
  int world_size = 1;
  int lanes = 1;  // that exchanges may name: 0 to lanes - 1; the same on all ranks, whether each uses them or not
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::vector<Mask> masks;  // beside the problem's, of the same length

  int find(std::string_view name) const;  // index of a buffer, or -1
};

// A mask by the index by which an attend names it: 0 is the problem's, which no program copies, and 1 + i is masks[i].
inline const Mask& mask_of(const RankProgram& program, const AttentionProblem& problem, int index) {
  return index == 0 ? problem.mask : program.masks[static_cast<std::size_t>(index) - 1];
}

struct Access {
  Slice slice;
  AccessMode mode;
};
// Every slice a step touches; the hazards, the validation and the checker all see steps through this.
template <typename Visit>
void for_each_access(const Step& step, const Visit& visit);

// "attend", "exchange", or the name of the operation.
std::string_view name_of(const Step& step);

// Faults of one rank's program that need no other rank to see: slices out of bounds or of the wrong kind, spans that do
// not match their slices, masks and peers that do not exist, transfers that overlap inside an exchange, inputs written,
// lanes that the program does not state. Throws ErrorCode::bug naming rank and step.
void validate(const RankProgram& program, const AttentionProblem& problem);

// The same program with fewer steps, each of which does more. A program clears what it adds to, adds block after block,
// and divides or rounds the sums at the end; on a device each of these is a pass over memory. Fused, the attends that
// meet cleared rows first begin them, and those that meet them last finish them, wherever they cover them exactly.
//
// The CUDA backend runs programs so; the host backend runs them as strategies write them (and runs these too).
RankProgram fuse(const RankProgram& program);

// The program as text, one line a buffer and a step; stable, for golden tests and for reading.
std::string to_text(const RankProgram& program);
std::string to_text(const RankProgram& program, int step);
std::string to_text(const RankProgram& program, const Slice& slice);

// What one rank's program costs, read off its steps.
struct ProgramCost {
  std::int64_t steps = 0;
  std::int64_t rounds = 0;  // exchanges
  std::int64_t bytes_sent = 0, bytes_received = 0;
  std::int64_t pairs = 0;            // admitted (query, key) pairs times query heads
  std::int64_t workspace_bytes = 0;  // of workspace buffers
  std::int64_t kept_bytes = 0;       // of kept buffers
};
ProgramCost cost(const RankProgram& program, const AttentionProblem& problem);

// ---------------------------------------------------------------------------------------------------------------------

template <typename Visit>
void for_each_access(const Step& step, const Visit& visit) {
  constexpr auto kRead = AccessMode::read, kWrite = AccessMode::write, kUpdate = AccessMode::update;
  struct Visitor {
    const Visit& visit;
    void operator()(const Exchange& s) const {
      for (const Transfer& t : s.sends) visit(Access{t.slice, kRead});
      for (const Transfer& t : s.receives) visit(Access{t.slice, kWrite});
    }
    void operator()(const Attend& s) const {
      visit(Access{s.query, kRead});
      visit(Access{s.key_value, kRead});
      owned(s);
    }
    void operator()(const AttendBackward& s) const {
      visit(Access{s.query, kRead});
      visit(Access{s.key_value, kRead});
      visit(Access{s.grad_output, kRead});
      visit(Access{s.output, kRead});
      visit(Access{s.delta, kRead});
      visit(Access{s.grad_query, kUpdate});
      owned(s);
    }
    void owned(const Attending& s) const {
      visit(Access{s.owned, s.begins ? kWrite : kUpdate});
      if (s.results.given()) visit(Access{s.results, kWrite});
    }
    void operator()(const Apply& s) const {
      const auto operands = row_of(s.operation).operands();
      for (std::size_t i = 0; i < operands.size(); ++i) {
        if (s.operands[i].given() || !operands[i].optional) visit(Access{s.operands[i], mode_of(operands[i].use)});
      }
    }
  };
  std::visit(Visitor{visit}, step);
}

}  // namespace orrery
