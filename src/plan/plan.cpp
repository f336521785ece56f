#include "orrery/plan.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "orrery/error.hpp"
#include "orrery/strategy.hpp"

namespace orrery {
namespace {

// What a layout asks of a rank: pairs of its queries with keys, and rows of keys that come from others.
struct Share {
  std::int64_t pairs = 0, fetched = 0;
  double work = 0;  // in pairs
};

Share share(const Mask& mask, const Layout& layout, const Costs& costs, int rank) {
  const std::vector<Span> own = layout.shard(rank);
  const Span whole[] = {{0, mask.seq_len(), 1}};
  Share share{pairs(mask, own, whole), -token_count(own)};  // whatever the mask, a token sees itself
  for (const Range& rows : keys_seen(mask, own, whole)) share.fetched += rows.size();
  share.work =
      static_cast<double>(share.pairs) + static_cast<double>(costs.pairs_per_row) * static_cast<double>(share.fetched);
  return share;
}

// That of the rank with most work, or of the first found to have more than `enough`. Contiguous shards differ as
// documents do, and all together have each document but once. The other layouts deal out every document alike, so that
// a few ranks stand for all: the first, the last, and one with two neighbours.
Share largest_share(const Mask& mask, const Layout& layout, const Costs& costs,
                    double enough = std::numeric_limits<double>::infinity()) {
  const int world_size = layout.world_size();
  std::vector<int> ranks{0, std::min(1, world_size - 1), world_size - 1};
  if (layout.text() == "contiguous") {
    ranks.resize(static_cast<std::size_t>(world_size));
    std::iota(ranks.begin(), ranks.end(), 0);
  }
  Share most = share(mask, layout, costs, ranks.front());
  for (std::size_t i = 1; i < ranks.size() && most.work <= enough; ++i) {
    const Share mine = share(mask, layout, costs, ranks[i]);
    if (mine.work > most.work) most = mine;
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
Choice choose_layout(const Mask& mask, int world_size, const Costs& costs) {
  if (world_size == 1) return {"contiguous", "one rank has all positions"};
  const double contiguous = largest_share(mask, Layout::make("contiguous", mask, world_size), costs).work;
  const double zigzag = largest_share(mask, Layout::make("zigzag", mask, world_size), costs, contiguous).work;
  if (zigzag < contiguous) return {"zigzag", "contiguous gives a rank " + more_work(contiguous, zigzag)};
  if (zigzag == contiguous) return {"contiguous", "zigzag gives its busiest rank as much work"};
  return {"contiguous", "zigzag gives a rank " + more_work(zigzag, contiguous)};
}

// A halo that is no larger than a shard takes one exchange, and no more memory than a ring's two blocks.
Choice choose_strategy(const Mask& mask, const Layout& layout, const Costs& costs) {
  if (mask.has_window() && largest_share(mask, layout, costs).fetched <= layout.max_tokens()) {
    return {"gather", "the window shows a rank fewer rows of others than it has of its own"};
  }
  return {"ring", "its memory does not grow with the number of ranks"};
}

Choice or_asked(const std::string& asked, const auto& choose) {
  if (asked != "auto") return {asked, "asked for"};
  return choose();
}

Placement placement(const Plan& plan) {
  return {plan.problem, plan.layout, plan.topology, plan.costs, plan.strategy_options, plan.options.backward};
}

}  // namespace

Plan make_plan(const AttentionProblem& problem, const Topology& topology, const PlanOptions& options,
               const Costs& costs) {
  problem.validate();
  topology.validate();
  costs.validate();
  const int world_size = topology.world_size;
  const StrategyText asked = parse_strategy(options.strategy);
  const Choice placed = or_asked(options.layout, [&] { return choose_layout(problem.mask, world_size, costs); });
  Plan plan{problem, topology, Layout::make(placed.name, problem.mask, world_size), {}, {}, {}, options, costs};
  const Choice served = or_asked(asked.name, [&] { return choose_strategy(problem.mask, plan.layout, costs); });
  plan.strategy = served.name;
  plan.reason = concat(placed.name, ": ", placed.reason, "; ", served.name, ": ", served.reason);
  const Strategy& strategy = find_strategy(plan.strategy);
  plan.strategy_options = options_for(strategy, asked);
  if (strategy.choose != nullptr) strategy.choose(placement(plan), plan.strategy_options);
  const std::string reason = strategy.rejects == nullptr ? "" : strategy.rejects(placement(plan));
  if (!reason.empty()) refuse("strategy ", strategy.name, " cannot serve this problem: ", reason);
  return plan;
}

RankProgram Plan::program(int rank, Pass pass) const {
  ORRERY_CHECK(rank >= 0 && rank < topology.world_size, "no rank ", rank, " of ", topology.world_size);
  return find_strategy(strategy).build(placement(*this), pass, rank);
}

std::string Plan::strategy_text() const {
  const std::string all = strategy_options.text();
  return all.empty() ? strategy : concat(strategy, ":", all);
}

std::vector<Port> Plan::ports(int rank) const {
  std::vector<RankProgram> made{program(rank, Pass::forward)};
  if (options.backward) made.push_back(program(rank, Pass::backward));
  std::vector<const RankProgram*> programs;
  programs.reserve(made.size());
  for (const RankProgram& one : made) programs.push_back(&one);
  return orrery::ports(problem, programs);
}

std::string Plan::text() const {
  const auto whole = [](double value) { return static_cast<std::int64_t>(value); };
  const double inside = topology.inside_node.bytes_per_second, between = topology.between_nodes.bytes_per_second;
  const std::string links = inside > 0 || between > 0
                                ? concat(" inside_node=", whole(inside), " between_nodes=", whole(between),
                                         " flops_per_second=", whole(costs.flops_per_second))
                                : "";
  return concat(problem.text(), " world_size=", topology.world_size, " layout=", layout.text(),
                " strategy=", strategy_text(), " backward=", options.backward ? 1 : 0, links);
}

}  // namespace orrery
