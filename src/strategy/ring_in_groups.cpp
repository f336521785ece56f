// A ring whose ranks take the blocks of several steps together. With short blocks a ring spends much of its time at
// the edges of its steps: the state of the queries, or the sums of dk and dv, go to memory and back. And a device has
// too little to do at the end of every launch. Here one attention step takes a group of blocks. Their rows lie in one
// buffer in the order of their positions, so that a query sees one interval of them, as of a single block.
//
// A group comes in one exchange, straight from the owners of its blocks, and has only the rows that this rank's queries
// see; nothing is passed on. It travels while the rank computes the group before it, so groups grow no faster than the
// links bring them. Backward, a rank sums the gradients of a group and sends them home in one exchange, and their
// owners add them in the order of the steps. A rank computes one half of its own block while the first group comes, and
// the other half while the last gradients are on their way.
//
// Memory is that of two groups, however many ranks there are; both passes fetch, and nothing is kept between them.
#include "strategy/ring_in_groups.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "strategy/strategy_program.hpp"

namespace orrery {
namespace {

// So many blocks arrive while one is computed, where the topology does not say what its links carry; where it does,
// that follows from what the fastest kernels compute.
constexpr std::int64_t kArrivals = 3;

// How many blocks arrive while one is computed: 2 head_dim heads n^2 operations, for of its pairs half are admitted, as
// under a causal mask, against 2 head_dim kv_heads n elements to move.
std::int64_t arrivals(const Placement& placement) {
  const AttentionProblem& problem = placement.problem;
  const double rate = placement.topology.slowest_link().bytes_per_second;
  if (!(rate > 0)) return kArrivals;
  const auto tokens = static_cast<double>(placement.layout.max_tokens());
  const double elements_per_second = rate / static_cast<double>(size_of(problem.dtype));
  const double arriving = problem.group() * tokens * elements_per_second / placement.costs.most_flops_per_second();
  return static_cast<std::int64_t>(std::clamp<double>(arriving, 1, placement.topology.world_size));
}

struct Group {
  std::vector<Run> fetched, lent;  // rows of others' blocks that this rank has, and of its own that others have
  std::vector<Span> spans;         // of the fetched rows, as they lie
};

// What both passes share.
class GroupProgram : protected StrategyProgram {
 protected:
  GroupProgram(const Placement& placement, Pass pass, int rank, std::int64_t together)
      : StrategyProgram(placement, pass, rank) {
    const std::int64_t arriving = arrivals(placement);
    for (std::int64_t step = 1, count = 1; step < world_; step += count) {
      count = std::min({together, arriving * count, world_ - step});
      groups_.push_back(group(static_cast<int>(step), static_cast<int>(count)));
    }
  }

  // The blocks that a ring would bring in these steps.
  Group group(int first_step, int count) const {
    Group g;
    std::int64_t lent = 0;
    for (int step = first_step; step < first_step + count; ++step) {
      const int behind = mod(rank_ - step, world_), ahead = mod(rank_ + step, world_);
      for (const Range& rows : needed(rank_, behind)) g.fetched.push_back({behind, rows, 0});
      for (const Range& rows : needed(ahead, rank_)) {
        g.lent.push_back({ahead, rows, lent});
        lent += rows.size();
      }
    }
    g.spans = place_by_position(g.fetched, layout_);
    return g;
  }

  // Rows of a source's block that a rank needs.
  Ranges needed(int rank, int source) const {
    return span_by_span(layout_.shard(source), travel_.needed(rank, source));
  }

  Slice owned(int buffer, const Run& run) const { return program_.tokens(buffer, run.rows); }
  Slice placed(int buffer, const Run& run) const { return program_.tokens(buffer, {run.at, run.at + run.rows.size()}); }

  void fetch(std::size_t g, int key_value) {
    if (g >= groups_.size()) return;
    Exchange e{.lane = kKeyValueLane, .order = RowOrder::by_token};
    for (const Run& run : groups_[g].lent) e.sends.push_back({owned(key_value, run), run.peer});
    for (const Run& run : groups_[g].fetched) e.receives.push_back({placed(fetched(g), run), run.peer});
    program_.add(std::move(e));
  }
  int fetched(std::size_t g) {
    return slot(fetched_, g, "fetched", BufferKind::key_value, problem_.dtype, &Group::fetched);
  }

  // Groups take turns in two buffers, each as large as the largest group in it: one comes while another is computed.
  int slot(std::array<int, 2>& slots, std::size_t g, std::string_view name, BufferKind kind, Dtype dtype,
           std::vector<Run> Group::*rows) {
    if (slots[g % 2] >= 0) return slots[g % 2];  // its size is not to be found again
    std::int64_t tokens = 0;
    for (std::size_t i = g % 2; i < groups_.size(); i += 2) tokens = std::max(tokens, rows_of(groups_[i].*rows));
    return in_turn(slots, g,
                   {.name = std::string(name),
                    .kind = kind,
                    .dtype = dtype,
                    .tokens = tokens,
                    .heads = problem_.kv_heads,
                    .order = RowOrder::by_token});
  }

  std::vector<Group> groups_;

 private:
  std::array<int, 2> fetched_ = {-1, -1};
};

class Forward : GroupProgram {
 public:
  Forward(const Placement& placement, int rank, std::int64_t together)
      : GroupProgram(placement, Pass::forward, rank, together) {}

  RankProgram build() && {
    const ForwardBuffers own = add_forward_buffers(program_, problem_, tokens_);
    fetch(0, own.key_value);
    program_.apply(Operation::clear, {program_.all(own.state)});
    emit_attend(program_, problem_, own, spans_, spans_, {own.key_value}, all_heads());
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      fetch(g + 1, own.key_value);
      if (groups_[g].fetched.empty()) continue;
      emit_attend(program_, problem_, own, spans_, groups_[g].spans, {fetched(g)}, all_heads());
    }
    program_.apply(Operation::normalize, {program_.all(own.output), program_.all(own.state)});
    return std::move(program_).finish();
  }
};

class Backward : GroupProgram {
 public:
  Backward(const Placement& placement, int rank, std::int64_t together)
      : GroupProgram(placement, Pass::backward, rank, together),
        own_(add_backward_buffers(program_, problem_, tokens_)),
        own_sum_(program_.buffer("grad_key_value_sum", BufferKind::grad_key_value, BufferRole::workspace, Dtype::fp32,
                                 tokens_, problem_.kv_heads)) {}

  RankProgram build() && {
    fetch(0, own_.key_value);
    program_.apply(Operation::delta,
                   {program_.all(own_.delta), program_.all(own_.output), program_.all(own_.grad_output)});
    program_.apply(Operation::clear, {program_.all(own_.grad_query_sum)});
    program_.apply(Operation::clear, {program_.all(own_sum_)});
    attend_own(0);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      fetch(g + 1, own_.key_value);
      attend(g);
      if (g > 0) add_returned(g - 1);
      send_home(g);
    }
    attend_own(1);
    if (!groups_.empty()) add_returned(groups_.size() - 1);
    program_.apply(Operation::copy, {program_.all(own_.grad_key_value), program_.all(own_sum_)});
    program_.apply(Operation::copy, {program_.all(own_.grad_query), program_.all(own_.grad_query_sum)});
    return std::move(program_).finish();
  }

 private:
  // Half of this rank's own block: of its KV heads, or of a single head's rows.
  void attend_own(int which) {
    const auto half_of = [&](std::int64_t whole) { return Range{whole * which / 2, whole * (which + 1) / 2}; };
    const bool by_heads = problem_.kv_heads > 1;
    const Range heads = by_heads ? half_of(problem_.kv_heads) : Range{0, 1};
    const Range rows = by_heads ? Range{0, tokens_} : half_of(tokens_);
    const KvHeads kv_heads{static_cast<int>(heads.begin), static_cast<int>(heads.size())};
    emit_attend_backward(program_, problem_, own_, spans_, slice(spans_, rows),
                         {own_.key_value, rows.begin, kv_heads.begin}, {own_sum_, rows.begin, kv_heads.begin},
                         kv_heads);
  }

  void attend(std::size_t g) {
    const Group& group = groups_[g];
    if (group.fetched.empty()) return;
    program_.apply(Operation::clear, {program_.tokens(sum(g), {0, rows_of(group.fetched)})});
    emit_attend_backward(program_, problem_, own_, spans_, group.spans, {fetched(g)}, {sum(g)}, all_heads());
  }

  void send_home(std::size_t g) {
    Exchange e{.lane = kGradientLane, .order = RowOrder::by_token};
    for (const Run& run : groups_[g].fetched) e.sends.push_back({placed(sum(g), run), run.peer});
    for (const Run& run : groups_[g].lent) e.receives.push_back({placed(returned(g), run), run.peer});
    program_.add(std::move(e));
  }

  void add_returned(std::size_t g) {
    for (const Run& run : groups_[g].lent)
      program_.apply(Operation::add, {owned(own_sum_, run), placed(returned(g), run)});
  }

  int sum(std::size_t g) {
    return slot(sums_, g, "fetched_sum", BufferKind::grad_key_value, Dtype::fp32, &Group::fetched);
  }
  int returned(std::size_t g) {
    return slot(returned_, g, "returned", BufferKind::grad_key_value, Dtype::fp32, &Group::lent);
  }

  const BackwardBuffers own_;
  const int own_sum_;
  std::array<int, 2> sums_ = {-1, -1}, returned_ = {-1, -1};
};

}  // namespace

std::int64_t blocks_together(const Placement& placement, Pass pass) {
  const std::int64_t keys = placement.options.number(pass == Pass::forward ? "keys" : "backward-keys");
  const Layout& layout = placement.layout;
  const int world = placement.topology.world_size;
  if (keys == 0 || layout.interleaves()) return 1;
  const std::int64_t most = std::min<std::int64_t>(keys / std::max<std::int64_t>(layout.max_tokens(), 1), world - 1);
  if (most <= 1 || arrivals(placement) <= 1) return 1;
  for (int rank = 0; rank < world; ++rank) {
    if (layout.shard(rank).size() > kMaxSpansApart) return 1;
  }
  return most;
}

RankProgram build_ring_in_groups(const Placement& placement, Pass pass, int rank, std::int64_t together) {
  return pass == Pass::forward ? Forward(placement, rank, together).build()
                               : Backward(placement, rank, together).build();
}

}  // namespace orrery
