// Ring attention (Liu et al., 2023). Queries stay at home; key-value blocks revolve. At step s of the forward pass rank
// r holds the block of source r - s, folds it into its running state, and meanwhile passes it on to r + 1.
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
#include <algorithm>
#include <array>
#include <optional>

#include "strategy/strategies.hpp"
#include "strategy/travel.hpp"

namespace orrery {
namespace {

constexpr int kKeyValueLane = 0;
constexpr int kGradientLane = 1;

// Over the whole ring at least this many pieces, so that what cannot be hidden, one piece, is a small part of the time.
constexpr int kPiecesAround = 8;

// Forward, blocks are taken together (keys_per_step) in at most so many times as large groups from one to the next, for
// a group arrives while the one before it is computed. The first is a rank's own block.
constexpr int kGrowth = 3;
// Blocks of more spans are not; nor are stripes, of which a query would still see one in P.
constexpr std::size_t kMaxSpansJoined = 16;

// A part of a block that is moved and computed as one.
struct Piece {
  KvHeads heads;
  Range rows;
};

// What both passes know of their surroundings.
class RingProgram {
 protected:
  RingProgram(const Placement& placement, Pass pass, int rank)
      : problem_(placement.problem),
        layout_(placement.layout),
        travel_(placement),
        world_(placement.topology.world_size),
        rank_(rank),
        keep_(placement.keep_key_value && world_ > 1),
        spans_(layout_.shard(rank)),
        tokens_(layout_.tokens(rank)),
        max_tokens_(layout_.max_tokens()),
        keeps_next_(kept(rank_at(1))),
        program_(pass, rank, world_) {}

  int rank_at(int offset) const { return mod(rank_ + offset, world_); }
  KvHeads all_heads() const { return {0, problem_.kv_heads}; }

  // The block of this source ends its forward travel at source - 1 with all rows that any rank needs, so that the
  // backward travel may start from it there.
  bool kept(int source) const {
    if (!keep_) return false;
    const int last = mod(source - 1, world_);
    const Ranges have = travel_.needed(last, source);
    return !have.empty() && covers(have, travel_.behind(last, source));
  }

  int pieces(int at_least) const {
    if (world_ == 1) return 1;
    const int wanted = std::max(at_least, (kPiecesAround + world_ - 1) / world_);
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
    int& id = slots[static_cast<std::size_t>(which)];
    if (id < 0) {
      id = program_.buffer(std::string(name) + (which == 0 ? "_a" : "_b"), kind, role, dtype, max_tokens_,
                           problem_.kv_heads);
    }
    return id;
  }

  const AttentionProblem& problem_;
  const Layout& layout_;
  const Travel travel_;
  const int world_, rank_;
  const bool keep_;
  const std::vector<Span> spans_;
  const std::int64_t tokens_, max_tokens_;
  const bool keeps_next_;  // the next rank's block is kept here
  ProgramBuilder program_;
};

class Forward : RingProgram {
 public:
  Forward(const Placement& placement, int rank)
      : RingProgram(placement, Pass::forward, rank),
        buffers_(add_forward_buffers(program_, problem_, tokens_)),
        joined_(most_joined(placement.keys_per_step)) {
    make_groups();
  }

  RankProgram build() && {
    receive(1);
    program_.add(Clear{program_.all(buffers_.state)});
    emit_attend(program_, problem_, buffers_, spans_, spans_, {buffers_.key_value}, all_heads());
    for (std::size_t g = 1; g < groups_.size(); ++g) {
      receive(g + 1);
      for (int p = 0; p < pieces(1); ++p) attend(groups_[g], head_piece(p));
    }
    program_.add(Normalize{program_.all(buffers_.output), program_.all(buffers_.state)});
    return std::move(program_).finish();
  }

 private:
  // Rows of the block of a step, and the row of their buffer at which they begin.
  struct Run {
    int step;
    Range rows;
    std::int64_t at;
  };
  // The blocks of some steps, side by side in one buffer, which are computed as one.
  struct Group {
    int first, last;  // steps
    std::vector<Run> runs = {};
    std::vector<Span> spans = {};  // of all rows; none when this rank needs none of the blocks
    std::int64_t tokens = 0;
    int slot = 0;
  };

  // How many blocks may be joined.
  std::int64_t most_joined(std::int64_t keys_per_step) const {
    const std::int64_t most = keys_per_step / std::max<std::int64_t>(max_tokens_, 1);
    if (most <= 1 || world_ <= 2 || layout_.interleaves()) return 1;
    for (int rank = 0; rank < world_; ++rank) {
      if (layout_.shard(rank).size() > kMaxSpansJoined) return 1;
    }
    return most;
  }
  bool joins() const { return joined_ > 1; }
  bool keeps_last_apart() const { return joins() && keeps_next_; }

  // Groups of all steps; the first is this rank's own block. A block that is kept for the backward pass stays by
  // itself.
  void make_groups() {
    const int free = keeps_last_apart() ? world_ - 1 : world_;
    for (int step = 0, count = 1; step < world_; step += count) {
      const bool may = step > 0 && step < free;
      count = may ? static_cast<int>(std::min<std::int64_t>({joined_, kGrowth * count, free - step})) : 1;
      group_of_step_.insert(group_of_step_.end(), static_cast<std::size_t>(count), groups_.size());
      groups_.push_back(count == 1 ? block(step) : blocks(step, step + count - 1));
    }
    // Groups take turns in two slots, so that the last lies in slot 0; a last one that is kept has that to itself.
    const int last = static_cast<int>(groups_.size()) - 1;
    for (int g = last; g > 0; --g) {
      const int turn = last - g;
      groups_[static_cast<std::size_t>(g)].slot = keeps_last_apart() && turn > 0 ? 1 + (turn - 1) % 2 : turn % 2;
    }
  }

  // A single block lies as its owner has it.
  Group block(int step) const {
    const int source = rank_at(-step);
    Group group{step, step, {{step, {0, layout_.tokens(source)}, 0}}};
    group.tokens = max_tokens_;
    if (travel_.needs(rank_, source)) group.spans = layout_.shard(source);
    return group;
  }

  // Of several, the rows that arrive here lie in the order of their positions: so a query sees one interval of them.
  Group blocks(int first, int last) const {
    Group group{first, last};
    for (int step = first; step <= last; ++step) {
      const int source = rank_at(-step);
      if (!travel_.needs(rank_, source)) continue;
      for (const Range& rows : apart(travel_.ahead(rank_, source), source)) group.runs.push_back({step, rows, 0});
    }
    const auto position = [&](const Run& run) { return layout_.position(rank_at(-run.step), run.rows.begin); };
    std::sort(group.runs.begin(), group.runs.end(),
              [&](const Run& a, const Run& b) { return position(a) < position(b); });
    for (Run& run : group.runs) {
      run.at = group.tokens;
      group.tokens += run.rows.size();
      for (const Span& span : slice(layout_.shard(rank_at(-run.step)), run.rows)) group.spans.push_back(span);
    }
    return group;
  }

  // Rows of a block, where blocks are joined span by span, for they may lie apart at either end of a transfer.
  Ranges apart(const Ranges& rows, int source) const {
    if (!joins()) return rows;
    Ranges cut;
    std::int64_t begin = 0;
    for (const Span& span : layout_.shard(source)) {
      for (const Range& r : clip(rows, {begin, begin + span.count})) cut.push_back(r);
      begin += span.count;
    }
    return cut;
  }

  KvHeads head_piece(int p) const { return piece(p, pieces(1), rank_).heads; }

  // Where a group lies; a slot is made when the first block arrives in it.
  int buffer(const Group& group) {
    if (group.first == 0) return buffers_.key_value;
    int& id = slots_[static_cast<std::size_t>(group.slot)];
    if (id < 0) {
      std::int64_t tokens = 0;
      for (const Group& g : groups_) {
        if (g.first > 0 && g.slot == group.slot) tokens = std::max(tokens, g.tokens);
      }
      const BufferRole role = group.slot == 0 && keeps_next_ ? BufferRole::kept : BufferRole::workspace;
      id = program_.buffer(std::string("key_value_") + "abc"[group.slot], BufferKind::key_value, role, problem_.dtype,
                           tokens, problem_.kv_heads);
    }
    return id;
  }

  void attend(const Group& group, KvHeads heads) {
    if (group.spans.empty()) return;
    emit_attend(program_, problem_, buffers_, spans_, group.spans, {buffer(group), 0, heads.begin}, heads);
  }

  // Adds transfers of these rows of the block of a step.
  void transfer(std::vector<Transfer>& list, int step, const Ranges& rows, KvHeads heads, int peer) {
    const Group& group = groups_[group_of_step_[static_cast<std::size_t>(step)]];
    for (const Range& wanted : apart(rows, rank_at(-step))) {
      for (const Run& run : group.runs) {
        if (run.step != step) continue;
        for (const Range& r : clip({wanted}, run.rows)) {
          list.push_back(
              {{buffer(group), run.at + r.begin - run.rows.begin, r.size(), heads.begin, heads.count}, peer});
        }
      }
    }
  }

  // Receives the blocks of a group, one after the other, while those before them are passed on.
  void receive(std::size_t g) {
    if (g >= groups_.size()) return;
    for (int step = groups_[g].first; step <= groups_[g].last; ++step) exchange(step - 1);
  }

  // Moves blocks so that every rank that needs one at step + 1 has it.
  void exchange(int step) {
    const int next = rank_at(1), previous = rank_at(-1);
    const int here = rank_at(-step), coming = rank_at(-step - 1);
    const int far = rank_at(step + 1);  // holds this rank's own block at the next step
    const bool passes_on = (step == 0 || travel_.needs(rank_, here)) && travel_.needs(next, here);
    const bool sends_afresh = step > 0 && travel_.needs(far, rank_) && !travel_.needs(mod(far - 1, world_), rank_);
    const bool receives = travel_.needs(rank_, coming);
    const bool from_ring = previous == coming || travel_.needs(previous, coming);
    const Ranges on = passes_on ? travel_.ahead(next, here) : Ranges{};
    const Ranges afresh = sends_afresh ? travel_.ahead(far, rank_) : Ranges{};
    const Ranges arriving = receives ? travel_.ahead(rank_, coming) : Ranges{};
    for (int p = 0; p < pieces(1); ++p) {
      const KvHeads heads = head_piece(p);
      Exchange e{.lane = kKeyValueLane};
      if (passes_on) transfer(e.sends, step, on, heads, next);
      if (sends_afresh) transfer(e.sends, 0, afresh, heads, far);
      if (receives) transfer(e.receives, step + 1, arriving, heads, from_ring ? previous : coming);
      program_.add(std::move(e));
    }
  }

  ForwardBuffers buffers_;
  const std::int64_t joined_;  // at most so many blocks in a group
  std::vector<Group> groups_;
  std::vector<std::size_t> group_of_step_;
  std::array<int, 3> slots_ = {-1, -1, -1};
};

class Backward : RingProgram {
 public:
  Backward(const Placement& placement, int rank)
      : RingProgram(placement, Pass::backward, rank), buffers_(add_backward_buffers(program_, problem_, tokens_)) {}

  RankProgram build() && {
    Visit now, next = visit(0);
    exchange_key_values(-1, now, next);
    program_.add(
        Delta{program_.all(buffers_.delta), program_.all(buffers_.output), program_.all(buffers_.grad_output)});
    program_.add(Clear{program_.all(buffers_.grad_query_sum)});
    for (int step = 0; step < world_; ++step) {
      now = std::move(next);
      next = visit(step + 1);
      exchange_key_values(step, now, next);
      for (int p = 0; p < pieces(2); ++p) {
        compute(step, p, now);
        exchange_gradients(step, p, now, next);
      }
    }
    const Slice home{gradient_slot(world_ - 1), 0, tokens_, 0, problem_.kv_heads};
    for (const Return& back : returns_) {
      for (const Range& r : back.rows) {
        Slice into = home;
        into.token_begin = r.begin;
        into.tokens = r.size();
        program_.add(Add{into, program_.tokens(back.buffer, r)});
      }
    }
    program_.add(Copy{program_.all(buffers_.grad_key_value), home});
    program_.add(Copy{program_.all(buffers_.grad_query), program_.all(buffers_.grad_query_sum)});
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
    int returns_from = -1;  // the rank at which this rank's own block leaves the ring at this step, far from home
  };

  bool at_home(int step) const { return step == world_ - 1; }

  Visit visit(int step) const {
    Visit v;
    if (step >= world_) return v;
    const int previous = rank_at(1);
    v.source = rank_at(step + 1);
    v.needed = at_home(step) || travel_.needs(rank_, v.source);
    if (v.needed) {
      v.stays = travel_.needs(rank_at(-1), v.source);
      if (step > 0 && travel_.needs(previous, v.source)) v.arrived = travel_.ahead(previous, v.source);
      v.carried = at_home(step) ? Ranges{{0, tokens_}} : travel_.ahead(rank_, v.source);
    }
    const int far = rank_at(-step - 1);  // holds this rank's own block at this step
    if (far != previous && travel_.needs(far, rank_) && !travel_.needs(mod(far - 1, world_), rank_))
      v.returns_from = far;
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
    if (step + 1 >= world_ - 1) return;  // the last step takes the rank's own block
    const int next_rank = rank_at(-1), previous = rank_at(1);
    const int far = rank_at(-step - 2);  // holds this rank's own block at the next step
    const bool continues = step < 0 ? kept(rank_) : travel_.needs(mod(far + 1, world_), rank_);
    const bool passes_on = now.needed && now.stays;
    const bool sends_afresh = travel_.needs(far, rank_) && !continues;
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
    for (const Range& r : clip(now.carried, piece.rows)) {
      for (const Range& fresh : subtract(r, now.arrived)) {
        program_.add(Clear{piece_slice(gradient, fresh, piece)});
      }
    }
    emit_attend_backward(program_, problem_, buffers_, spans_, slice(layout_.shard(now.source), piece.rows),
                         {block(step), piece.rows.begin, piece.heads.begin},
                         {gradient, piece.rows.begin, piece.heads.begin}, piece.heads);
  }

  // Sends on the piece just computed, to the next rank or, where the block leaves the ring, home; receives what the
  // next step adds to, and this rank's own gradients where they left the ring at this step.
  void exchange_gradients(int step, int p, const Visit& now, const Visit& next) {
    if (at_home(step)) return;
    Exchange e{.lane = kGradientLane};
    if (now.needed) {
      transfers(e.sends, gradient_slot(step), now.carried, part(p, now.source), now.stays ? rank_at(-1) : now.source);
    }
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
    Ranges rows;
  };
  const Return& return_from(int rank) {
    const auto known = std::find_if(returns_.begin(), returns_.end(), [&](const Return& r) { return r.rank == rank; });
    if (known != returns_.end()) return *known;
    const int buffer = program_.buffer("returned_" + std::to_string(rank), BufferKind::grad_key_value,
                                       BufferRole::workspace, Dtype::fp32, tokens_, problem_.kv_heads);
    returns_.push_back({rank, buffer, travel_.ahead(rank, rank_)});
    return returns_.back();
  }

  BackwardBuffers buffers_;
  std::array<int, 2> slots_ = {-1, -1};
  std::array<int, 2> gradient_slots_ = {-1, -1};
  std::vector<Return> returns_;
};

std::string rejects(const Placement&) {
  return {};
}

RankProgram build(const Placement& placement, Pass pass, int rank) {
  return pass == Pass::forward ? Forward(placement, rank).build() : Backward(placement, rank).build();
}

}  // namespace

const Strategy& ring_strategy() {
  static constexpr Strategy kRing{"ring", "key-value blocks revolve past the queries; constant memory", rejects, build};
  return kRing;
}

}  // namespace orrery
