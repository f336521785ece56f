// Gather: every rank fetches all the key-values its queries see, and computes where the queries are. Done by groups of
// KV heads, as Llama 3 does: while one group is computed the next is fetched, into two buffers. When the mask is a
// window the ranges a rank sees are short and near, and this is a halo exchange, done in one group.
//
// Backward, the key-values are fetched again in the same way; the gradients of fetched rows are summed where they were
// used, sent home one group late, and added there in the order of ranks.
//
// Memory grows with the keys a rank sees: for a full mask with seq_len, divided by the number of groups.
#include <algorithm>
#include <array>

#include "strategy/strategies.hpp"
#include "strategy/strategy_program.hpp"

namespace orrery {
namespace {

constexpr int kMaxGroups = 8;

class GatherProgram : protected StrategyProgram {
 protected:
  GatherProgram(const Placement& placement, Pass pass, int rank) : StrategyProgram(placement, pass, rank) {
    for (int source = 0; source < world_; ++source) {
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

  int groups() const { return problem_.mask.has_window() || world_ == 1 ? 1 : std::min(problem_.kv_heads, kMaxGroups); }
  KvHeads group(int g) const {
    const int begin = problem_.kv_heads * g / groups(), end = problem_.kv_heads * (g + 1) / groups();
    return {begin, end - begin};
  }
  int group_heads() const { return (problem_.kv_heads + groups() - 1) / groups(); }

  // One of two buffers of fetched rows, for the heads of one group.
  int fetched(int g) {
    return in_turn(buffers_, static_cast<std::size_t>(g),
                   {.name = "fetched",
                    .kind = BufferKind::key_value,
                    .dtype = problem_.dtype,
                    .tokens = fetched_tokens_,
                    .heads = group_heads()});
  }

  void fetch(int g, int own) {
    const KvHeads heads = group(g);
    Exchange e{.lane = kKeyValueLane};
    for (const auto& [peer, ranges] : lent_) {
      for (const Range& r : ranges) {
        e.sends.push_back({ProgramBuilder::heads(program_.tokens(own, r), heads.begin, heads.count), peer});
      }
    }
    for (const Run& p : fetched_) {
      e.receives.push_back({{fetched(g), p.at, p.rows.size(), 0, heads.count}, p.peer});
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
  Forward(const Placement& placement, int rank) : GatherProgram(placement, Pass::forward, rank) {}

  RankProgram build() && {
    const ForwardBuffers buffers = add_forward_buffers(program_, problem_, tokens_);
    fetch(0, buffers.key_value);
    program_.apply(Operation::clear, {program_.all(buffers.state)});
    for (int g = 0; g < groups(); ++g) {
      if (g + 1 < groups()) fetch(g + 1, buffers.key_value);
      const KvHeads heads = group(g);
      emit_attend(program_, problem_, buffers, spans_, spans_, {buffers.key_value, 0, heads.begin}, heads);
      if (fetched_tokens_ > 0) {
        emit_attend(program_, problem_, buffers, spans_, fetched_spans_, {fetched(g), 0, 0}, heads);
      }
    }
    program_.apply(Operation::normalize, {program_.all(buffers.output), program_.all(buffers.state)});
    return std::move(program_).finish();
  }
};

class Backward : GatherProgram {
 public:
  Backward(const Placement& placement, int rank) : GatherProgram(placement, Pass::backward, rank) {}

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
    for (int g = 0; g < groups(); ++g) {
      if (g + 1 < groups()) fetch(g + 1, own.key_value);
      const KvHeads heads = group(g);
      emit_attend_backward(program_, problem_, own, spans_, spans_, {own.key_value, 0, heads.begin},
                           {own_sum_, 0, heads.begin}, heads);
      if (fetched_tokens_ > 0) {
        const int sum = fetched_sum(g);
        program_.apply(Operation::clear, {ProgramBuilder::heads(program_.all(sum), 0, heads.count)});
        emit_attend_backward(program_, problem_, own, spans_, fetched_spans_, {fetched(g), 0, 0}, {sum, 0, 0}, heads);
      }
      if (g > 0) add_returned(g - 1);
      send_home(g);
    }
    add_returned(groups() - 1);
    program_.apply(Operation::copy, {program_.all(own.grad_key_value), program_.all(own_sum_)});
    program_.apply(Operation::copy, {program_.all(own.grad_query), program_.all(own.grad_query_sum)});
    return std::move(program_).finish();
  }

 private:
  int fetched_sum(int g) {
    return in_turn(sums_, static_cast<std::size_t>(g),
                   {.name = "fetched_sum",
                    .kind = BufferKind::grad_key_value,
                    .dtype = Dtype::fp32,
                    .tokens = fetched_tokens_,
                    .heads = group_heads()});
  }
  int returned() {
    if (returned_buffer_ < 0) {
      returned_buffer_ = program_.buffer("returned", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32,
                                         returned_tokens_, group_heads());
    }
    return returned_buffer_;
  }

  void send_home(int g) {
    const int heads = group(g).count;
    Exchange e{.lane = kGradientLane};
    if (zeros_between_) program_.apply(Operation::clear, {ProgramBuilder::heads(program_.all(returned()), 0, heads)});
    for (const Run& p : fetched_) e.sends.push_back({{fetched_sum(g), p.at, p.rows.size(), 0, heads}, p.peer});
    for (const Run& p : returned_) e.receives.push_back({{returned(), p.at, p.rows.size(), 0, heads}, p.peer});
    program_.add(std::move(e));
  }

  void add_returned(int g) {
    const KvHeads heads = group(g);
    for (const Run& p : added_) {
      const Slice into = ProgramBuilder::heads(program_.tokens(own_sum_, p.rows), heads.begin, heads.count);
      program_.apply(Operation::add, {into, {returned(), p.at, p.rows.size(), 0, heads.count}});
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
  return pass == Pass::forward ? Forward(placement, rank).build() : Backward(placement, rank).build();
}

}  // namespace

const Strategy& gather_strategy() {
  static constexpr Strategy kGather{
      .name = "gather",
      .summary = "each rank fetches the keys its queries see, by groups of KV heads; a halo when the mask is a window",
      .build = build};
  return kGather;
}

}  // namespace orrery
