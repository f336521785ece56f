// Ring attention (Liu et al., 2023), over a group of ranks (strategy/group.hpp), which r numbers by their places.
// Queries stay at home; key-value blocks revolve. At step s of the forward pass rank r holds the block of source r - s,
// folds it into its running state, and meanwhile passes it on to r + 1.
//
// The backward pass revolves the other way: at step t rank r holds the block of source r + 1 + t, so that it can start
// from the block the forward pass received last, and ends with its own. The gradients of a block, dk and dv in fp32,
// follow it around and so arrive at home with the last hop, just when their owner adds its own share.
//
// A block moves in pieces, some of its KV heads each (of a single KV head: some of its keys). Forward, the last block
// to arrive has nothing to hide behind but its own other pieces; a ring of few ranks therefore cuts finer. Backward,
// one piece of the gradients travels while another is computed, so that the hop is hidden although it carries what the
// next step adds to, and two gradient slots are enough.
//
// Both are pruned by what the mask needs (strategy/travel.hpp): a block stops where nobody ahead needs it, carries only
// the rows that somebody ahead needs, and skips ranks that need nothing. A gradient whose block left the ring goes
// straight home.
//
// Where blocks are short a pass may take several together (strategy/ring_in_bundles.hpp); then none is kept.
#include "strategy/ring.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "strategy/ring_in_bundles.hpp"
#include "strategy/strategies.hpp"
#include "strategy/strategy_program.hpp"

namespace orrery {
namespace {

// Over the whole ring at least this many pieces, so that what cannot be hidden, one piece, is a small part of the time.
constexpr int kPiecesAround = 8;

// A part of a block that is moved and computed as one.
struct Piece {
  KvHeads heads;
  Range rows;
};

// What both passes know of their surroundings.
class RingProgram : protected StrategyProgram {
 protected:
  RingProgram(const Placement& placement, const Group& group, Pass pass, int rank)
      : StrategyProgram(placement, group, pass, rank),
        keep_(placement.backward && placement.options.flag("keep") && size_ > 1 &&
              blocks_together(placement, group, Pass::forward) == 1 &&
              blocks_together(placement, group, Pass::backward) == 1),
        max_tokens_(most_tokens(layout_, group_)),
        keeps_next_(kept(rank_at(1))) {}

  // Whether this rank needs a source's block, and another rank this one's.
  bool needs(int source) const { return travel_.needs(rank_, source); }
  bool needed_by(int rank) const { return travel_.needs(rank, rank_); }

  // The block of this source ends its forward travel at source - 1 with all rows that any rank needs, so that the
  // backward travel may start from it there.
  bool kept(int source) const {
    if (!keep_) return false;
    const int last = group_.from(source, -1);
    const Ranges have = travel_.needed(last, source);
    return !have.empty() && covers(have, travel_.behind(last, source));
  }

  int pieces(int at_least) const {
    if (size_ == 1) return 1;
    const int wanted = std::max(at_least, (kPiecesAround + size_ - 1) / size_);
    return problem_.kv_heads > 1 ? std::min(wanted, problem_.kv_heads) : at_least;
  }
  // Piece p of `count` of a source's block.
  Piece piece(int p, int count, int source) const {
    const std::int64_t rows = layout_.tokens(source);
    if (problem_.kv_heads == 1) return {all_heads(), {rows * p / count, rows * (p + 1) / count}};
    const int begin = problem_.kv_heads * p / count, end = problem_.kv_heads * (p + 1) / count;
    return {{begin, end - begin}, {0, rows}};
  }
  void transfers(std::vector<Transfer>& list, int buffer, const Ranges& rows, const Piece& part, int peer) const {
    for (const Range& r : clip(rows, part.rows)) list.push_back({piece_slice(buffer, r, part), peer});
  }
  static Slice piece_slice(int buffer, Range rows, const Piece& part) {
    return {buffer, rows.begin, rows.size(), part.heads.begin, part.heads.count};
  }

  // The slot a visiting block lies in; made when a block first arrives there.
  int slot(std::array<int, 2>& slots, int which, std::string_view name, BufferKind kind, BufferRole role, Dtype dtype) {
    return in_turn(slots, static_cast<std::size_t>(which),
                   {.name = std::string(name),
                    .kind = kind,
                    .role = role,
                    .dtype = dtype,
                    .tokens = max_tokens_,
                    .heads = problem_.kv_heads});
  }

  const bool keep_;
  const std::int64_t max_tokens_;
  const bool keeps_next_;  // the next rank's block is kept here
};

class Forward : RingProgram {
 public:
  Forward(const Placement& placement, const Group& group, int rank)
      : RingProgram(placement, group, Pass::forward, rank),
        buffers_(add_forward_buffers(program_, problem_, tokens_)) {}

  RankProgram build() && {
    exchange(0);
    program_.apply(Operation::clear, {program_.all(buffers_.state)});
    emit_attend(program_, problem_, buffers_, spans_, spans_, {buffers_.key_value}, all_heads());
    for (int step = 1; step < size_; ++step) {
      exchange(step);
      const int source = rank_at(-step);
      if (!needs(source)) continue;
      for (int p = 0; p < pieces(1); ++p) {
        const KvHeads heads = piece(p, pieces(1), source).heads;
        emit_attend(program_, problem_, buffers_, spans_, layout_.shard(source), {block(step), 0, heads.begin}, heads);
      }
    }
    program_.apply(Operation::normalize, {program_.all(buffers_.output), program_.all(buffers_.state)});
    return std::move(program_).finish();
  }

 private:
  // The buffer that holds the block of this step. The last one may be kept, in slot a.
  int block(int step) {
    if (step == 0) return buffers_.key_value;
    const int which = mod(size_ - 1 - step, 2);
    const bool keeps = which == 0 && keeps_next_;
    return slot(slots_, which, "key_value", BufferKind::key_value, keeps ? BufferRole::kept : BufferRole::workspace,
                problem_.dtype);
  }

  // Moves blocks so that every rank that needs one at step + 1 has it.
  void exchange(int step) {
    if (step + 1 >= size_) return;
    const int next = rank_at(1), previous = rank_at(-1);
    const int here = rank_at(-step), coming = rank_at(-step - 1);
    const int far = rank_at(step + 1);  // holds this rank's own block at the next step
    const bool passes_on = (step == 0 || needs(here)) && travel_.needs(next, here);
    const bool sends_afresh = step > 0 && needed_by(far) && !needed_by(group_.from(far, -1));
    const bool receives = needs(coming);
    const bool from_ring = previous == coming || travel_.needs(previous, coming);
    const Ranges on = passes_on ? travel_.ahead(next, here) : Ranges{};
    const Ranges afresh = sends_afresh ? travel_.ahead(far, rank_) : Ranges{};
    const Ranges arriving = receives ? travel_.ahead(rank_, coming) : Ranges{};
    for (int p = 0; p < pieces(1); ++p) {
      const auto part = [&](int source) { return piece(p, pieces(1), source); };
      Exchange e{.lane = kKeyValueLane};
      if (passes_on) transfers(e.sends, block(step), on, part(here), next);
      if (sends_afresh) transfers(e.sends, buffers_.key_value, afresh, part(rank_), far);
      if (receives) transfers(e.receives, block(step + 1), arriving, part(coming), from_ring ? previous : coming);
      program_.add(std::move(e));
    }
  }

  ForwardBuffers buffers_;
  std::array<int, 2> slots_ = {-1, -1};
};

class Backward : RingProgram {
 public:
  Backward(const Placement& placement, const Group& group, int rank)
      : RingProgram(placement, group, Pass::backward, rank),
        buffers_(add_backward_buffers(program_, problem_, tokens_)) {}

  RankProgram build() && {
    Visit now, next = visit(0);
    exchange_key_values(-1, now, next);
    program_.apply(Operation::delta,
                   {program_.all(buffers_.delta), program_.all(buffers_.output), program_.all(buffers_.grad_output)});
    program_.apply(Operation::clear, {program_.all(buffers_.grad_query_sum)});
    for (int step = 0; step < size_; ++step) {
      now = std::move(next);
      next = visit(step + 1);
      exchange_key_values(step, now, next);
      for (int p = 0; p < pieces(2); ++p) {
        compute(step, p, now);
        exchange_gradients(step, p, now, next);
      }
    }
    const Slice home{gradient_slot(size_ - 1), 0, tokens_, 0, problem_.kv_heads};
    for (const Return& back : returns_) {
      for (const Range& r : back.added) {
        Slice into = home;
        into.token_begin = r.begin;
        into.tokens = r.size();
        program_.apply(Operation::add, {into, program_.tokens(back.buffer, r)});
      }
    }
    program_.apply(Operation::copy, {program_.all(buffers_.grad_key_value), home});
    program_.apply(Operation::copy, {program_.all(buffers_.grad_query), program_.all(buffers_.grad_query_sum)});
    return std::move(program_).finish();
  }

 private:
  // A block as it passes this rank.
  struct Visit {
    int source = -1;
    bool needed = false;    // this rank's queries see some of it; its own block is always needed, at the last step
    bool stays = false;     // the next rank needs it too, so it stays on the ring
    Ranges arrived;         // rows of its gradients that come by the ring
    Ranges carried;         // rows of its gradients once this rank's share is in them
    bool in_bits = false;   // so many rows begin here, apart, that they are cleared with all others before any arrive
    int returns_from = -1;  // the rank at which this rank's own block leaves the ring at this step, far from home
  };

  bool at_home(int step) const { return step == size_ - 1; }

  Visit visit(int step) const {
    Visit v;
    if (step >= size_) return v;
    const int previous = rank_at(1);
    v.source = rank_at(step + 1);
    v.needed = at_home(step) || needs(v.source);
    if (v.needed) {
      v.stays = travel_.needs(rank_at(-1), v.source);
      if (step > 0 && travel_.needs(previous, v.source)) v.arrived = travel_.ahead(previous, v.source);
      v.carried = at_home(step) ? Ranges{{0, tokens_}} : travel_.ahead(rank_, v.source);
      v.in_bits = subtract(v.carried, v.arrived).size() > kMaxSpansApart;
    }
    const int far = rank_at(-step - 1);  // holds this rank's own block at this step
    if (far != previous && needed_by(far) && !needed_by(group_.from(far, -1))) v.returns_from = far;
    return v;
  }

  // The gradients' pieces; key-values move with them, so that the first piece need not wait for the last.
  Piece part(int p, int source) const { return piece(p, pieces(2), source); }

  int block(int step) {
    if (at_home(step)) return buffers_.key_value;
    const int which = mod(step, 2);
    const bool keeps = which == 0 && keeps_next_;
    return slot(slots_, which, "key_value", BufferKind::key_value, keeps ? BufferRole::kept : BufferRole::workspace,
                problem_.dtype);
  }
  int gradient_slot(int step) {
    return slot(gradient_slots_, mod(step, 2), "grad_key_value_sum", BufferKind::grad_key_value, BufferRole::workspace,
                Dtype::fp32);
  }

  // Moves key-values so that every rank that needs a block at step + 1 has it; step -1 is before the first.
  void exchange_key_values(int step, const Visit& now, const Visit& next) {
    if (step + 1 >= size_ - 1) return;  // the last step takes the rank's own block
    const int next_rank = rank_at(-1), previous = rank_at(1);
    const int far = rank_at(-step - 2);  // holds this rank's own block at the next step
    const bool continues = step < 0 ? kept(rank_) : needed_by(group_.from(far, 1));
    const bool passes_on = now.needed && now.stays;
    const bool sends_afresh = needed_by(far) && !continues;
    const bool receives = next.needed && !(step < 0 && kept(next.source));
    const bool from_ring = !next.arrived.empty();
    const Ranges on = passes_on ? travel_.behind(next_rank, now.source) : Ranges{};
    const Ranges afresh = sends_afresh ? travel_.behind(far, rank_) : Ranges{};
    const Ranges arriving = receives ? travel_.behind(rank_, next.source) : Ranges{};
    for (int p = 0; p < pieces(2); ++p) {
      Exchange e{.lane = kKeyValueLane};
      if (passes_on) transfers(e.sends, block(step), on, part(p, now.source), next_rank);
      if (sends_afresh) transfers(e.sends, buffers_.key_value, afresh, part(p, rank_), far);
      if (receives) {
        transfers(e.receives, block(step + 1), arriving, part(p, next.source), from_ring ? previous : next.source);
      }
      program_.add(std::move(e));
    }
  }

  void compute(int step, int p, const Visit& now) {
    if (!now.needed) return;
    const Piece piece = part(p, now.source);
    const int gradient = gradient_slot(step);
    if (!now.in_bits) {
      for (const Range& fresh : subtract(clip(now.carried, piece.rows), now.arrived)) {
        program_.apply(Operation::clear, {piece_slice(gradient, fresh, piece)});
      }
    } else if (step == 0) {
      clear(step, piece, now);
    }
    emit_attend_backward(program_, problem_, buffers_, spans_, slice(layout_.shard(now.source), piece.rows),
                         {block(step), piece.rows.begin, piece.heads.begin},
                         {gradient, piece.rows.begin, piece.heads.begin}, piece.heads);
  }

  void clear(int step, const Piece& piece, const Visit& visit) {
    const Range rows = hull(clip(visit.carried, piece.rows));
    program_.apply(Operation::clear, {piece_slice(gradient_slot(step), rows, piece)});
  }

  // Sends on the piece just computed, to the next rank or, where the block leaves the ring, home; receives what the
  // next step adds to, and this rank's own gradients where they left the ring at this step.
  void exchange_gradients(int step, int p, const Visit& now, const Visit& next) {
    if (at_home(step)) return;
    Exchange e{.lane = kGradientLane};
    if (now.needed) {
      transfers(e.sends, gradient_slot(step), now.carried, part(p, now.source), now.stays ? rank_at(-1) : now.source);
    }
    if (next.in_bits) clear(step + 1, part(p, next.source), next);
    if (!next.arrived.empty()) {
      transfers(e.receives, gradient_slot(step + 1), next.arrived, part(p, next.source), rank_at(1));
    }
    if (now.returns_from >= 0) {
      const Return& back = return_from(now.returns_from);
      transfers(e.receives, back.buffer, back.rows, part(p, rank_), back.rank);
    }
    program_.add(std::move(e));
  }

  // Gradients of this rank's block that come straight home.
  struct Return {
    int rank;
    int buffer;
    Ranges rows, added;  // that come, and that are added at home, all others being zeros
  };
  const Return& return_from(int rank) {
    const auto known = std::find_if(returns_.begin(), returns_.end(), [&](const Return& r) { return r.rank == rank; });
    if (known != returns_.end()) return *known;
    const int buffer = program_.buffer("returned_" + std::to_string(rank), BufferKind::grad_key_value,
                                       BufferRole::workspace, Dtype::fp32, tokens_, problem_.kv_heads);
    returns_.push_back({rank, buffer, travel_.ahead(rank, rank_), {}});
    Return& back = returns_.back();
    if (back.rows.size() > kMaxSpansApart) {  // added in one step
      program_.apply(Operation::clear, {program_.all(buffer)});
      back.added = {hull(back.rows)};
    } else {
      back.added = back.rows;
    }
    return back;
  }

  BackwardBuffers buffers_;
  std::array<int, 2> slots_ = {-1, -1};
  std::array<int, 2> gradient_slots_ = {-1, -1};
  std::vector<Return> returns_;
};

constexpr StrategyOption kOptions[] = {
    {.name = "keys",
     .standard = "0",
     .meaning = "forward, blocks are taken together while they have at most so many keys; 0: a block a step",
     .chosen = true},
    {.name = "backward-keys", .standard = "0", .meaning = "the same of the backward pass", .chosen = true},
    {.name = "keep",
     .kind = OptionKind::flag,
     .standard = "yes",
     .meaning = "the backward pass starts from the key-values that the forward pass received last"},
};

// Where it is known what links carry, a rank can tell how many blocks it may wait for. Where ranks share a device, the
// launches of one fill the gaps of another, and fewer launches save less than it costs to send gradients home and add
// them there.
void choose(const Placement& placement, StrategyOptions& options) {
  if (!(placement.topology.slowest_link().bytes_per_second > 0)) return;
  const std::int64_t keys = placement.costs.filling_keys;
  if (!options.given("keys")) options.choose("keys", keys);
  if (!options.given("backward-keys") && !placement.topology.one_device) options.choose("backward-keys", keys);
}

RankProgram build(const Placement& placement, Pass pass, int rank) {
  return build_ring(placement, Group(placement.topology.world_size), pass, rank);
}

}  // namespace

RankProgram build_ring(const Placement& placement, const Group& group, Pass pass, int rank) {
  const std::int64_t together = blocks_together(placement, group, pass);
  if (together > 1) return build_ring_in_bundles(placement, group, pass, rank, together);
  return pass == Pass::forward ? Forward(placement, group, rank).build() : Backward(placement, group, rank).build();
}

const Strategy& ring_strategy() {
  static constexpr Strategy kRing{.name = "ring",
                                  .summary = "key-value blocks revolve past the queries; constant memory",
                                  .build = build,
                                  .options = kOptions,
                                  .choose = choose};
  return kRing;
}

}  // namespace orrery
