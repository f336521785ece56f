// Gather: every rank fetches all the key-values its queries see, and computes where the queries are. Done by parts of
// the KV heads, as Llama 3 does: while one part is computed the next is fetched, into two buffers. When the mask is a
// window the ranges a rank sees are short and near, and this is a halo exchange, done in one part. Ranks are those of a
// group (strategy/group.hpp).
//
// Backward, the key-values are fetched again in the same way; the gradients of fetched rows are summed where they were
// used, sent home one part late, and added there in the order of the group.
//
// Memory grows with the keys a rank sees: for a full mask with seq_len, divided by the number of parts.
#include "strategy/gather.hpp"

#include <algorithm>
#include <array>

#include "strategy/strategies.hpp"
#include "strategy/strategy_program.hpp"

namespace orrery {
namespace {

constexpr int kMaxParts = 8;

class GatherProgram : protected StrategyProgram {
 protected:
  GatherProgram(const Placement& placement, const Group& group, Pass pass, int rank)
      : StrategyProgram(placement, group, pass, rank) {
    for (int place = 0; place < size_; ++place) {
      const int source = group_.at(place);
      if (source == rank_) continue;
      for (const Range& r : pieces(rank_, source)) fetched_.push_back({source, r, 0});
      lent_.push_back({source, pieces(source, rank_)});
    }
    fetched_spans_ = place_by_position(fetched_, layout_);
    fetched_tokens_ = rows_of(fetched_);
  }

  // Rows of the source's shard that the rank fetches, in the order in which they are sent. With few spans they come
  // span by span, so that they can lie in position order and be computed as one block. With many they come as whole
  // ranges, source by source.
  Ranges pieces(int rank, int source) const {
    Ranges needed = travel_.needed(rank, source);
    const auto spans = layout_.shard(source);
    return spans.size() > kMaxSpansApart ? needed : span_by_span(spans, needed);
  }

  int parts() const { return problem_.mask.has_window() || size_ == 1 ? 1 : std::min(problem_.kv_heads, kMaxParts); }
  KvHeads part(int p) const {
    const int begin = problem_.kv_heads * p / parts(), end = problem_.kv_heads * (p + 1) / parts();
    return {begin, end - begin};
  }
  int part_heads() const { return (problem_.kv_heads + parts() - 1) / parts(); }

  // One of two buffers of fetched rows, for the heads of one part.
  int fetched(int p) {
    return in_turn(buffers_, static_cast<std::size_t>(p),
                   {.name = "fetched",
                    .kind = BufferKind::key_value,
                    .dtype = problem_.dtype,
                    .tokens = fetched_tokens_,
                    .heads = part_heads()});
  }

  void fetch(int p, int own) {
    const KvHeads heads = part(p);
    Exchange e{.lane = kKeyValueLane};
    for (const auto& [peer, ranges] : lent_) {
      for (const Range& r : ranges) {
        e.sends.push_back({ProgramBuilder::heads(program_.tokens(own, r), heads.begin, heads.count), peer});
      }
    }
    for (const Run& run : fetched_) {
      e.receives.push_back({{fetched(p), run.at, run.rows.size(), 0, heads.count}, run.peer});
    }
    program_.add(std::move(e));
  }

  struct Lent {
    int peer;
    Ranges rows;
  };
  std::vector<Run> fetched_;  // by source
  std::vector<Lent> lent_;    // this rank's rows that others fetch
  std::vector<Span> fetched_spans_;
  std::int64_t fetched_tokens_ = 0;
  std::array<int, 2> buffers_ = {-1, -1};
};

class Forward : GatherProgram {
 public:
  Forward(const Placement& placement, const Group& group, int rank)
      : GatherProgram(placement, group, Pass::forward, rank) {}

  RankProgram build() && {
    const ForwardBuffers buffers = add_forward_buffers(program_, problem_, tokens_);
    fetch(0, buffers.key_value);
    program_.apply(Operation::clear, {program_.all(buffers.state)});
    for (int p = 0; p < parts(); ++p) {
      if (p + 1 < parts()) fetch(p + 1, buffers.key_value);
      const KvHeads heads = part(p);
      emit_attend(program_, problem_, buffers, spans_, spans_, {buffers.key_value, 0, heads.begin}, heads);
      if (fetched_tokens_ > 0) {
        emit_attend(program_, problem_, buffers, spans_, fetched_spans_, {fetched(p), 0, 0}, heads);
      }
    }
    program_.apply(Operation::normalize, {program_.all(buffers.output), program_.all(buffers.state)});
    return std::move(program_).finish();
  }
};

class Backward : GatherProgram {
 public:
  Backward(const Placement& placement, const Group& group, int rank)
      : GatherProgram(placement, group, Pass::backward, rank) {}

  RankProgram build() && {
    buffers_of_caller_ = add_backward_buffers(program_, problem_, tokens_);
    const BackwardBuffers& own = buffers_of_caller_;
    own_sum_ = program_.buffer("grad_key_value_sum", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32,
                               tokens_, problem_.kv_heads);
    for (const auto& [peer, rows] : lent_) {
      const bool in_bits = rows.size() > kMaxSpansApart;
      const Range all = hull(rows);
      if (in_bits) added_.push_back({peer, all, returned_tokens_});
      for (const Range& r : rows) {
        returned_.push_back({peer, r, returned_tokens_ + (in_bits ? r.begin - all.begin : 0)});
        if (!in_bits) added_.push_back(returned_.back());
        if (!in_bits) returned_tokens_ += r.size();
      }
      if (in_bits) returned_tokens_ += all.size();
      zeros_between_ = zeros_between_ || in_bits;
    }
    fetch(0, own.key_value);
    program_.apply(Operation::delta,
                   {program_.all(own.delta), program_.all(own.output), program_.all(own.grad_output)});
    program_.apply(Operation::clear, {program_.all(own.grad_query_sum)});
    program_.apply(Operation::clear, {program_.all(own_sum_)});
    for (int p = 0; p < parts(); ++p) {
      if (p + 1 < parts()) fetch(p + 1, own.key_value);
      const KvHeads heads = part(p);
      emit_attend_backward(program_, problem_, own, spans_, spans_, {own.key_value, 0, heads.begin},
                           {own_sum_, 0, heads.begin}, heads);
      if (fetched_tokens_ > 0) {
        const int sum = fetched_sum(p);
        program_.apply(Operation::clear, {ProgramBuilder::heads(program_.all(sum), 0, heads.count)});
        emit_attend_backward(program_, problem_, own, spans_, fetched_spans_, {fetched(p), 0, 0}, {sum, 0, 0}, heads);
      }
      if (p > 0) add_returned(p - 1);
      send_home(p);
    }
    add_returned(parts() - 1);
    program_.apply(Operation::copy, {program_.all(own.grad_key_value), program_.all(own_sum_)});
    program_.apply(Operation::copy, {program_.all(own.grad_query), program_.all(own.grad_query_sum)});
    return std::move(program_).finish();
  }

 private:
  int fetched_sum(int p) {
    return in_turn(sums_, static_cast<std::size_t>(p),
                   {.name = "fetched_sum",
                    .kind = BufferKind::grad_key_value,
                    .dtype = Dtype::fp32,
                    .tokens = fetched_tokens_,
                    .heads = part_heads()});
  }
  int returned() {
    if (returned_buffer_ < 0) {
      returned_buffer_ = program_.buffer("returned", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32,
                                         returned_tokens_, part_heads());
    }
    return returned_buffer_;
  }

  void send_home(int p) {
    const int heads = part(p).count;
    Exchange e{.lane = kGradientLane};
    if (zeros_between_) program_.apply(Operation::clear, {ProgramBuilder::heads(program_.all(returned()), 0, heads)});
    for (const Run& run : fetched_) e.sends.push_back({{fetched_sum(p), run.at, run.rows.size(), 0, heads}, run.peer});
    for (const Run& run : returned_) e.receives.push_back({{returned(), run.at, run.rows.size(), 0, heads}, run.peer});
    program_.add(std::move(e));
  }

  void add_returned(int p) {
    const KvHeads heads = part(p);
    for (const Run& run : added_) {
      const Slice into = ProgramBuilder::heads(program_.tokens(own_sum_, run.rows), heads.begin, heads.count);
      program_.apply(Operation::add, {into, {returned(), run.at, run.rows.size(), 0, heads.count}});
    }
  }

  BackwardBuffers buffers_of_caller_{};
  int own_sum_ = -1;
  std::array<int, 2> sums_ = {-1, -1};
  int returned_buffer_ = -1;
  std::vector<Run> returned_;  // gradients of this rank's rows, by the rank that used them
  // What is added to them. Of rows that come in many ranges all are, from the first to the last, with zeros between
  // them.
  std::vector<Run> added_;
  bool zeros_between_ = false;
  std::int64_t returned_tokens_ = 0;
};

RankProgram build(const Placement& placement, Pass pass, int rank) {
  return build_gather(placement, Group(placement.topology.world_size), pass, rank);
}

}  // namespace

RankProgram build_gather(const Placement& placement, const Group& group, Pass pass, int rank) {
  return pass == Pass::forward ? Forward(placement, group, rank).build() : Backward(placement, group, rank).build();
}

const Strategy& gather_strategy() {
  static constexpr Strategy kGather{
      .name = "gather",
      .summary = "each rank fetches the keys its queries see, by groups of KV heads; a halo when the mask is a window",
      .build = build};
  return kGather;
}

}  // namespace orrery
