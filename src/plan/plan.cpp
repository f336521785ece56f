#include "orrery/plan.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "orrery/error.hpp"
#include "orrery/strategy.hpp"

namespace orrery {
namespace {

// What fetching one key row costs, in pairs of query and key: links and kernels of clusters as of one host are some
// hundreds apart.
constexpr std::int64_t kPairsPerRow = 256;

// What a layout asks of a rank: pairs of its queries with keys, and rows of keys that come from others.
struct Share {
  std::int64_t pairs = 0, fetched = 0;

  double work() const { return static_cast<double>(pairs) + double{kPairsPerRow} * static_cast<double>(fetched); }
};

Share share(const Mask& mask, const Layout& layout, int rank) {
  const std::vector<Span> own = layout.shard(rank);
  const Span whole[] = {{0, mask.seq_len(), 1}};
  Share share{pairs(mask, own, whole), -token_count(own)};  // whatever the mask, a token sees itself
  for (const Range& rows : keys_seen(mask, own, whole)) share.fetched += rows.size();
  return share;
}

// That of the rank with most work, or of the first found to have more than `enough`. Contiguous shards differ as
// documents do, and all together have each document but once. The other layouts deal out every document alike, so that
// a few ranks stand for all: the first, the last, and one with two neighbours.
Share largest_share(const Mask& mask, const Layout& layout, double enough = std::numeric_limits<double>::infinity()) {
  const int world_size = layout.world_size();
  std::vector<int> ranks{0, std::min(1, world_size - 1), world_size - 1};
  if (layout.text() == "contiguous") {
    ranks.resize(static_cast<std::size_t>(world_size));
    std::iota(ranks.begin(), ranks.end(), 0);
  }
  Share most = share(mask, layout, ranks.front());
  for (std::size_t i = 1; i < ranks.size() && most.work() <= enough; ++i) {
    const Share mine = share(mask, layout, ranks[i]);
    if (mine.work() > most.work()) most = mine;
  }
  return most;
}

// "1.9 times the work", or of less "3.2 % more work".
std::string more_work(double more, double less) {
  const auto tenths = [](double value) {
    const auto whole = static_cast<std::int64_t>(10 * value);
    return concat(whole / 10, ".", whole % 10);
  };
  if (more >= 1.1 * less) return tenths(more / less) + " times the work";
  return tenths(100 * (more / less - 1)) + " % more work";
}

struct Choice {
  std::string name, reason;
};

// Contiguous shards cut few documents, so short ones stay whole; zigzag cuts every one, which gives all ranks the same
// pairs but makes them fetch.
Choice choose_layout(const Mask& mask, int world_size) {
  if (world_size == 1) return {"contiguous", "one rank has all positions"};
  const double contiguous = largest_share(mask, Layout::make("contiguous", mask, world_size)).work();
  const double zigzag = largest_share(mask, Layout::make("zigzag", mask, world_size), contiguous).work();
  if (zigzag < contiguous) return {"zigzag", "contiguous gives a rank " + more_work(contiguous, zigzag)};
  if (zigzag == contiguous) return {"contiguous", "zigzag gives its busiest rank as much work"};
  return {"contiguous", "zigzag gives a rank " + more_work(zigzag, contiguous)};
}

// A halo that is no larger than a shard takes one exchange, and no more memory than a ring's two blocks.
Choice choose_strategy(const Mask& mask, const Layout& layout) {
  if (mask.has_window() && largest_share(mask, layout).fetched <= layout.max_tokens()) {
    return {"gather", "the window shows a rank fewer rows of others than it has of its own"};
  }
  return {"ring", "its memory does not grow with the number of ranks"};
}

Choice or_asked(const std::string& asked, const auto& choose) {
  if (asked != "auto") return {asked, "asked for"};
  return choose();
}

Placement placement(const Plan& plan) {
  return {plan.problem,
          plan.layout,
          plan.topology,
          plan.options.backward && plan.options.keep_key_value,
          plan.options.keys_per_step,
          plan.options.backward_keys_per_step};
}

}  // namespace

Plan make_plan(const AttentionProblem& problem, const Topology& topology, const PlanOptions& options) {
  problem.validate();
  topology.validate();
  const int world_size = topology.world_size;
  const Choice placed = or_asked(options.layout, [&] { return choose_layout(problem.mask, world_size); });
  Plan plan{problem, topology, Layout::make(placed.name, problem.mask, world_size), {}, {}, options};
  const Choice served = or_asked(options.strategy, [&] { return choose_strategy(problem.mask, plan.layout); });
  plan.strategy = served.name;
  plan.reason = concat(placed.name, ": ", placed.reason, "; ", served.name, ": ", served.reason);
  const Strategy& strategy = find_strategy(plan.strategy);
  for (std::int64_t keys : {options.keys_per_step, options.backward_keys_per_step}) {
    if (keys < 0) refuse(keys, " keys a step");
  }
  const std::string reason = strategy.rejects(placement(plan));
  if (!reason.empty()) refuse("strategy ", strategy.name, " cannot serve this problem: ", reason);
  return plan;
}

RankProgram Plan::program(int rank, Pass pass) const {
  ORRERY_CHECK(rank >= 0 && rank < topology.world_size, "no rank ", rank, " of ", topology.world_size);
  return find_strategy(strategy).build(placement(*this), pass, rank);
}

std::string Plan::text() const {
  const bool in_groups = options.keys_per_step > 0 || options.backward_keys_per_step > 0;
  const auto rate = [](const LinkRate& link) { return static_cast<std::int64_t>(link.bytes_per_second); };
  const std::string links =
      in_groups ? concat(" inside_node=", rate(topology.inside_node), " between_nodes=", rate(topology.between_nodes))
                : "";
  return concat(problem.text(), " world_size=", topology.world_size, " layout=", layout.text(), " strategy=", strategy,
                " backward=", options.backward ? 1 : 0, " keep_key_value=", options.keep_key_value ? 1 : 0,
                " keys_per_step=", options.keys_per_step, " backward_keys_per_step=", options.backward_keys_per_step,
                links);
}

}  // namespace orrery
