// A forward ring whose ranks take the blocks of several steps together. While blocks are short a ring spends much of
// its time at the edges of its steps: the state of the queries goes in and out of memory, and a device runs dry at the
// end of every launch. Here one attention step takes a group of blocks, whose rows lie in one buffer in the order of
// their positions, so that what a query sees of them is one interval, as of a single block.
//
// A group comes in one exchange, straight from the owners of its blocks, and only the rows that this rank's queries
// see; nothing is passed on. It comes while the group before it is computed, so groups grow no faster than the links
// bring them. Memory is that of two groups, however many ranks there are.
#include "strategy/ring_in_groups.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "strategy/travel.hpp"

namespace orrery {
namespace {

constexpr int kKeyValueLane = 0;

// So many blocks arrive while one is computed, where the topology does not say what its links carry; where it does,
// that follows from what the fastest kernels compute.
constexpr int kArrivals = 3;
constexpr double kFlopsPerSecond = 6.5e14;
// Blocks of more spans are not taken together; nor are stripes, of which a query would still see one in P.
constexpr std::size_t kMaxSpans = 16;

// How many blocks arrive while one is computed, of whose pairs half are admitted, as under a causal mask.
int arrivals(const Placement& placement) {
  const AttentionProblem& problem = placement.problem;
  const Topology& topology = placement.topology;
  const double rate = (topology.nodes() > 1 ? topology.between_nodes : topology.inside_node).bytes_per_second;
  if (rate <= 0) return kArrivals;
  const auto tokens = static_cast<double>(placement.layout.max_tokens());
  const double computing = 2.0 * problem.head_dim * problem.heads * tokens * tokens / kFlopsPerSecond;
  const double moving =
      2.0 * problem.head_dim * problem.kv_heads * tokens * static_cast<double>(size_of(problem.dtype)) / rate;
  return static_cast<int>(std::clamp<double>(computing / moving, 1, topology.world_size));
}

// Rows of a block that move as one: whose they are, and the row of a group's buffer at which they begin.
struct Run {
  int source;
  Range rows;
  std::int64_t at;
};

// The blocks that a ring would bring in some steps.
struct Group {
  int first_step, last_step;
  std::vector<Run> runs;    // in the order in which they come
  std::vector<Span> spans;  // as they lie
  std::int64_t tokens = 0;
};

class Forward {
 public:
  Forward(const Placement& placement, int rank, std::int64_t together)
      : problem_(placement.problem),
        layout_(placement.layout),
        travel_(placement),
        world_(placement.topology.world_size),
        rank_(rank),
        program_(Pass::forward, rank, world_) {
    const int faster = arrivals(placement);
    for (int step = 1, count = 1; step < world_; step += count) {
      count = static_cast<int>(std::min<std::int64_t>({together, faster * count, world_ - step}));
      groups_.push_back(group(step, step + count - 1));
    }
  }

  RankProgram build() && {
    const std::vector<Span> spans = layout_.shard(rank_);
    const KvHeads heads{0, problem_.kv_heads};
    const ForwardBuffers own = add_forward_buffers(program_, problem_, layout_.tokens(rank_));
    fetch(0, own.key_value);
    program_.add(Clear{program_.all(own.state)});
    emit_attend(program_, problem_, own, spans, spans, {own.key_value}, heads);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      fetch(g + 1, own.key_value);
      if (groups_[g].tokens == 0) continue;
      emit_attend(program_, problem_, own, spans, groups_[g].spans, {buffer(g)}, heads);
    }
    program_.add(Normalize{program_.all(own.output), program_.all(own.state)});
    return std::move(program_).finish();
  }

 private:
  int ahead(int step) const { return mod(rank_ + step, world_); }
  int behind(int step) const { return mod(rank_ - step, world_); }

  Group group(int first_step, int last_step) const {
    Group g{first_step, last_step, {}, {}};
    for (int step = first_step; step <= last_step; ++step) {
      for (const Range& rows : needed(rank_, behind(step))) g.runs.push_back({behind(step), rows, 0});
    }
    std::vector<Run*> by_position;
    for (Run& run : g.runs) by_position.push_back(&run);
    const auto position = [&](const Run* run) { return layout_.position(run->source, run->rows.begin); };
    std::sort(by_position.begin(), by_position.end(),
              [&](const Run* a, const Run* b) { return position(a) < position(b); });
    for (Run* run : by_position) {
      run->at = g.tokens;
      g.tokens += run->rows.size();
      for (const Span& span : slice(layout_.shard(run->source), run->rows)) g.spans.push_back(span);
    }
    return g;
  }

  // Rows of a source's block that a rank needs, span by span, for spans may lie apart where they arrive.
  Ranges needed(int rank, int source) const {
    const Ranges rows = travel_.needed(rank, source);
    Ranges by_span;
    std::int64_t begin = 0;
    for (const Span& span : layout_.shard(source)) {
      for (const Range& r : clip(rows, {begin, begin + span.count})) by_span.push_back(r);
      begin += span.count;
    }
    return by_span;
  }

  // Receives a group, and sends of this rank's own block what others have of it in theirs.
  void fetch(std::size_t g, int own) {
    if (g >= groups_.size()) return;
    const Group& group = groups_[g];
    Exchange e{.lane = kKeyValueLane, .order = RowOrder::by_token};
    for (int step = group.first_step; step <= group.last_step; ++step) {
      for (const Range& rows : needed(ahead(step), rank_)) e.sends.push_back({program_.tokens(own, rows), ahead(step)});
    }
    for (const Run& run : group.runs) {
      e.receives.push_back({program_.tokens(buffer(g), {run.at, run.at + run.rows.size()}), run.source});
    }
    program_.add(std::move(e));
  }

  // Groups take turns in two buffers, each as large as the largest in it.
  int buffer(std::size_t g) {
    int& id = buffers_[g % 2];
    if (id < 0) {
      std::int64_t tokens = 0;
      for (std::size_t i = g; i < groups_.size(); i += 2) tokens = std::max(tokens, groups_[i].tokens);
      id = program_.buffer(g % 2 == 0 ? "group_a" : "group_b", BufferKind::key_value, BufferRole::workspace,
                           problem_.dtype, tokens, problem_.kv_heads, RowOrder::by_token);
    }
    return id;
  }

  const AttentionProblem& problem_;
  const Layout& layout_;
  const Travel travel_;
  const int world_, rank_;
  ProgramBuilder program_;
  std::vector<Group> groups_;
  std::array<int, 2> buffers_ = {-1, -1};
};

}  // namespace

std::int64_t blocks_together(const Placement& placement) {
  const Layout& layout = placement.layout;
  const int world = placement.topology.world_size;
  const std::int64_t most = placement.keys_per_step / std::max<std::int64_t>(layout.max_tokens(), 1);
  if (most <= 1 || world <= 2 || layout.interleaves()) return 1;
  for (int rank = 0; rank < world; ++rank) {
    if (layout.shard(rank).size() > kMaxSpans) return 1;
  }
  return most;
}

RankProgram build_ring_in_groups(const Placement& placement, int rank, std::int64_t together) {
  return Forward(placement, rank, together).build();
}

}  // namespace orrery
