// A ring whose ranks take the blocks of several steps together. With short blocks a ring spends much of its time at
// the edges of its steps: the state of the queries, or the sums of dk and dv, go to memory and back. And a device has
// too little to do at the end of every launch. Here one attention step takes a bundle of blocks. Their rows lie in one
// buffer in the order of their positions, so that a query sees one interval of them, as of a single block.
//
// A bundle comes in one exchange, straight from the owners of its blocks, and has only the rows that this rank's
// queries see; nothing is passed on. It travels while the rank computes the bundle before it, so bundles grow no faster
// than the links bring them. Backward, a rank sums the gradients of a bundle and sends them home in one exchange, and
// their owners add them in the order of the steps. A rank computes one half of its own block while the first bundle
// comes, and the other half while the last gradients are on their way.
//
// Memory is that of two bundles, however many ranks there are; both passes fetch, and nothing is kept between them.
#include "strategy/ring_in_bundles.hpp"

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
std::int64_t arrivals(const Placement& placement, const Group& group) {
  const AttentionProblem& problem = placement.problem;
  const double rate = placement.topology.slowest_link().bytes_per_second;
  if (!(rate > 0)) return kArrivals;
  const auto tokens = static_cast<double>(most_tokens(placement.layout, group));
  const double elements_per_second = rate / static_cast<double>(size_of(problem.dtype));
  const double arriving = problem.group() * tokens * elements_per_second / placement.costs.flops_per_second;
  return static_cast<std::int64_t>(std::clamp<double>(arriving, 1, group.size()));
}

struct Bundle {
  std::vector<Run> fetched, lent;  // rows of others' blocks that this rank has, and of its own that others have
  std::vector<Span> spans;         // of the fetched rows, as they lie
};

// What both passes share.
class BundleProgram : protected StrategyProgram {
 protected:
  BundleProgram(const Placement& placement, const Group& group, Pass pass, int rank, std::int64_t together)
      : StrategyProgram(placement, group, pass, rank) {
    const std::int64_t arriving = arrivals(placement, group);
    for (std::int64_t step = 1, count = 1; step < size_; step += count) {
      count = std::min({together, arriving * count, size_ - step});
      bundles_.push_back(brought_by(static_cast<int>(step), static_cast<int>(count)));
    }
  }

  // The blocks that a ring would bring in these steps.
  Bundle brought_by(int first_step, int count) const {
    Bundle bundle;
    std::int64_t lent = 0;
    for (int step = first_step; step < first_step + count; ++step) {
      const int behind = rank_at(-step), ahead = rank_at(step);
      for (const Range& rows : needed(rank_, behind)) bundle.fetched.push_back({behind, rows, 0});
      for (const Range& rows : needed(ahead, rank_)) {
        bundle.lent.push_back({ahead, rows, lent});
        lent += rows.size();
      }
    }
    bundle.spans = place_by_position(bundle.fetched, layout_);
    return bundle;
  }

  // Rows of a source's block that a rank needs.
  Ranges needed(int rank, int source) const {
    return span_by_span(layout_.shard(source), travel_.needed(rank, source));
  }

  Slice owned(int buffer, const Run& run) const { return program_.tokens(buffer, run.rows); }
  Slice placed(int buffer, const Run& run) const { return program_.tokens(buffer, {run.at, run.at + run.rows.size()}); }

  void fetch(std::size_t b, int key_value) {
    if (b >= bundles_.size()) return;
    Exchange e{.lane = kKeyValueLane, .order = RowOrder::by_token};
    for (const Run& run : bundles_[b].lent) e.sends.push_back({owned(key_value, run), run.peer});
    for (const Run& run : bundles_[b].fetched) e.receives.push_back({placed(fetched(b), run), run.peer});
    program_.add(std::move(e));
  }
  int fetched(std::size_t b) {
    return slot(fetched_, b, "fetched", BufferKind::key_value, problem_.dtype, &Bundle::fetched);
  }

  // Bundles take turns in two buffers, each as large as the largest in it: one comes while another is computed.
  int slot(std::array<int, 2>& slots, std::size_t b, std::string_view name, BufferKind kind, Dtype dtype,
           std::vector<Run> Bundle::*rows) {
    if (slots[b % 2] >= 0) return slots[b % 2];  // its size is not to be found again
    std::int64_t tokens = 0;
    for (std::size_t i = b % 2; i < bundles_.size(); i += 2) tokens = std::max(tokens, rows_of(bundles_[i].*rows));
    return in_turn(slots, b,
                   {.name = std::string(name),
                    .kind = kind,
                    .dtype = dtype,
                    .tokens = tokens,
                    .heads = problem_.kv_heads,
                    .order = RowOrder::by_token});
  }

  std::vector<Bundle> bundles_;

 private:
  std::array<int, 2> fetched_ = {-1, -1};
};

class Forward : BundleProgram {
 public:
  Forward(const Placement& placement, const Group& group, int rank, std::int64_t together)
      : BundleProgram(placement, group, Pass::forward, rank, together) {}

  RankProgram build() && {
    const ForwardBuffers own = add_forward_buffers(program_, problem_, tokens_);
    fetch(0, own.key_value);
    program_.apply(Operation::clear, {program_.all(own.state)});
    emit_attend(program_, problem_, own, spans_, spans_, {own.key_value}, all_heads());
    for (std::size_t b = 0; b < bundles_.size(); ++b) {
      fetch(b + 1, own.key_value);
      if (bundles_[b].fetched.empty()) continue;
      emit_attend(program_, problem_, own, spans_, bundles_[b].spans, {fetched(b)}, all_heads());
    }
    program_.apply(Operation::normalize, {program_.all(own.output), program_.all(own.state)});
    return std::move(program_).finish();
  }
};

class Backward : BundleProgram {
 public:
  Backward(const Placement& placement, const Group& group, int rank, std::int64_t together)
      : BundleProgram(placement, group, Pass::backward, rank, together),
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
    for (std::size_t b = 0; b < bundles_.size(); ++b) {
      fetch(b + 1, own_.key_value);
      attend(b);
      if (b > 0) add_returned(b - 1);
      send_home(b);
    }
    attend_own(1);
    if (!bundles_.empty()) add_returned(bundles_.size() - 1);
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

  void attend(std::size_t b) {
    const Bundle& bundle = bundles_[b];
    if (bundle.fetched.empty()) return;
    program_.apply(Operation::clear, {program_.tokens(sum(b), {0, rows_of(bundle.fetched)})});
    emit_attend_backward(program_, problem_, own_, spans_, bundle.spans, {fetched(b)}, {sum(b)}, all_heads());
  }

  void send_home(std::size_t b) {
    Exchange e{.lane = kGradientLane, .order = RowOrder::by_token};
    for (const Run& run : bundles_[b].fetched) e.sends.push_back({placed(sum(b), run), run.peer});
    for (const Run& run : bundles_[b].lent) e.receives.push_back({placed(returned(b), run), run.peer});
    program_.add(std::move(e));
  }

  void add_returned(std::size_t b) {
    for (const Run& run : bundles_[b].lent)
      program_.apply(Operation::add, {owned(own_sum_, run), placed(returned(b), run)});
  }

  int sum(std::size_t b) {
    return slot(sums_, b, "fetched_sum", BufferKind::grad_key_value, Dtype::fp32, &Bundle::fetched);
  }
  int returned(std::size_t b) {
    return slot(returned_, b, "returned", BufferKind::grad_key_value, Dtype::fp32, &Bundle::lent);
  }

  const BackwardBuffers own_;
  const int own_sum_;
  std::array<int, 2> sums_ = {-1, -1}, returned_ = {-1, -1};
};

}  // namespace

std::int64_t blocks_together(const Placement& placement, const Group& group, Pass pass) {
  const std::int64_t keys = placement.options.number(pass == Pass::forward ? "keys" : "backward-keys");
  const Layout& layout = placement.layout;
  if (keys == 0 || layout.interleaves()) return 1;
  const std::int64_t most_keys = std::max<std::int64_t>(most_tokens(layout, group), 1);
  const std::int64_t most = std::min<std::int64_t>(keys / most_keys, group.size() - 1);
  if (most <= 1 || arrivals(placement, group) <= 1) return 1;
  for (int place = 0; place < group.size(); ++place) {
    if (layout.shard(group.at(place)).size() > kMaxSpansApart) return 1;
  }
  return most;
}

RankProgram build_ring_in_bundles(const Placement& placement, const Group& group, Pass pass, int rank,
                                  std::int64_t together) {
  return pass == Pass::forward ? Forward(placement, group, rank, together).build()
                               : Backward(placement, group, rank, together).build();
}

}  // namespace orrery
