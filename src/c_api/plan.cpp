#include "orrery/plan.hpp"

#include <algorithm>
#include <tuple>
#include <vector>

#include "c_api/handles.hpp"
#include "orrery/check.hpp"
#include "orrery/strategy.hpp"

using namespace orrery;
using namespace orrery::c_api;

static_assert(ORRERY_PORT_NONE == static_cast<int>(PortUse::none) &&
              ORRERY_PORT_INPUT == static_cast<int>(PortUse::input) &&
              ORRERY_PORT_OUTPUT == static_cast<int>(PortUse::output));

namespace {

AttentionProblem problem_of(const orrery_problem* problem) {
  require(problem, "problem");
  const orrery_problem defaults = ORRERY_PROBLEM_INIT;
  const orrery_problem given = read(problem, defaults, "problem");
  if (given.seq_len < 0) refuse("a sequence of ", given.seq_len, " tokens");
  return {.batch = given.batch,
          .seq_len = given.seq_len,
          .heads = given.heads,
          .kv_heads = given.kv_heads,
          .head_dim = given.head_dim,
          .dtype = dtype_of(given.dtype),
          .mask = Mask::parse(text_or(given.mask, "full"), given.seq_len),
          .scale = given.scale};
}

// The text of the strategy, with what the fields say that had no names for it. These meant nothing to a strategy
// without such options.
std::string strategy_of(const orrery_plan_options& given) {
  StrategyText text = parse_strategy(text_or(given.strategy, "auto"));
  const auto add = [&](const char* option, const std::string& value) {
    const bool means_something = text.name == "auto" || find_strategy(text.name).has(option);
    if (means_something && !text.has(option)) text.options.emplace_back(option, value);
  };
  if (given.keep_key_value == 0) add("keep", "no");
  if (given.keys_per_step != 0 || given.backward_keys_per_step != 0) {
    add("keys", std::to_string(given.keys_per_step));
    add("backward-keys", std::to_string(given.backward_keys_per_step));
  }
  return text.text();
}

// What the caller says of links holds before what is known of them.
Plan plan_of(const orrery_problem* problem, const orrery_plan_options* options, Topology topology, const Costs& costs) {
  const orrery_plan_options defaults = ORRERY_PLAN_OPTIONS_INIT;
  const orrery_plan_options given = read(options, defaults, "options");
  if (given.link_bytes_per_second != 0) {
    topology.inside_node.bytes_per_second = topology.between_nodes.bytes_per_second = given.link_bytes_per_second;
  }
  return make_plan(
      problem_of(problem), topology,
      {.layout = text_or(given.layout, "auto"), .strategy = strategy_of(given), .backward = given.backward != 0},
      costs);
}

template <typename Tell>
orrery_status make(const Tell& tell, orrery_plan** plan, const auto& planned) {
  return guarded(tell, [&] {
    require(plan, "plan");
    *plan = nullptr;
    *plan = new orrery_plan(planned());
  });
}

const Plan& plan_at(const orrery_plan* plan, int rank) {
  require(plan, "plan");
  const int world_size = plan->plan.topology.world_size;
  if (rank < 0 || rank >= world_size) refuse("rank ", rank, " of a plan for ", world_size, " ranks");
  return plan->plan;
}

Pass pass_in(const Plan& plan, orrery_pass pass) {
  const Pass one = pass_of(pass);
  if (one == Pass::backward && !plan.options.backward) refuse("this plan has no backward pass");
  return one;
}

}  // namespace

int64_t orrery_strategies(char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    std::string lines;
    for (const Strategy& each : strategies()) lines += concat(each.name, ' ', each.summary, '\n');
    return give(lines, text, text_size);
  });
}

int64_t orrery_strategy_options(char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    std::string lines;
    for (const Strategy& each : strategies()) {
      for (const StrategyOption& option : each.options) {
        lines += concat(each.name, ' ', usage(option), ' ', option.standard, ' ', option.meaning, '\n');
      }
    }
    return give(lines, text, text_size);
  });
}

orrery_status orrery_plan_create(orrery_context* context, const orrery_problem* problem,
                                 const orrery_plan_options* options, orrery_plan** plan) {
  if (context == nullptr) return ORRERY_INVALID;
  const Rank& rank = *context->rank;
  return make(ToRank{*context->rank}, plan, [&] { return plan_of(problem, options, rank.topology, rank.costs); });
}

orrery_status orrery_plan_for(int world_size, int ranks_per_node, const orrery_problem* problem,
                              const orrery_plan_options* options, orrery_plan** plan, char* message,
                              size_t message_size) {
  return make(ToBuffer{message, message_size}, plan,
              [&] { return plan_of(problem, options, Topology::uniform(world_size, ranks_per_node), Costs::cuda()); });
}

void orrery_plan_destroy(orrery_plan* plan) {
  delete plan;
}

const char* orrery_plan_text(const orrery_plan* plan) {
  return plan == nullptr ? nullptr : plan->text.c_str();
}
const char* orrery_plan_layout(const orrery_plan* plan) {
  return plan == nullptr ? nullptr : plan->plan.layout.text().c_str();
}
const char* orrery_plan_strategy(const orrery_plan* plan) {
  return plan == nullptr ? nullptr : plan->plan.strategy.c_str();
}
const char* orrery_plan_reason(const orrery_plan* plan) {
  return plan == nullptr ? nullptr : plan->plan.reason.c_str();
}
int orrery_plan_world_size(const orrery_plan* plan) {
  return plan == nullptr ? 0 : plan->plan.topology.world_size;
}

int64_t orrery_plan_tokens(const orrery_plan* plan, int rank) {
  return guarded_number(ToNobody{}, [&] { return plan_at(plan, rank).layout.tokens(rank); });
}

int64_t orrery_plan_positions(const orrery_plan* plan, int rank, int64_t* positions, int64_t count) {
  return guarded_number(ToNobody{}, [&] {
    const Layout& layout = plan_at(plan, rank).layout;
    if (positions != nullptr && count > 0) {
      const std::vector<std::int64_t> all = orrery::positions(layout, rank);
      std::copy_n(all.begin(), std::min(count, static_cast<std::int64_t>(all.size())), positions);
    }
    return layout.tokens(rank);
  });
}

orrery_status orrery_plan_owner(const orrery_plan* plan, int64_t position, int* rank, int64_t* index) {
  return guarded(ToNobody{}, [&] {
    const Layout& layout = plan_at(plan, 0).layout;
    require(rank, "rank");
    require(index, "index");
    if (position < 0 || position >= layout.seq_len()) refuse("position ", position, " of ", layout.seq_len());
    std::tie(*rank, *index) = layout.owner(position);
  });
}

int64_t orrery_plan_port_count(const orrery_plan* plan, int rank) {
  return guarded_number(ToNobody{}, [&] {
    plan_at(plan, rank);
    return static_cast<int64_t>(plan->ports(rank).size());
  });
}

orrery_status orrery_plan_port(const orrery_plan* plan, int rank, int64_t index, orrery_port* port) {
  return guarded(ToNobody{}, [&] {
    plan_at(plan, rank);
    const std::vector<Port> ports = plan->ports(rank);
    if (index < 0 || index >= static_cast<int64_t>(ports.size())) refuse("port ", index, " of ", ports.size());
    const Port& p = ports[static_cast<std::size_t>(index)];
    orrery_port filled = ORRERY_PORT_INIT;
    if (p.name.size() >= sizeof filled.name) refuse("the port ", p.name, " has too long a name for C");
    give(p.name, filled.name, sizeof filled.name);
    filled.dtype = static_cast<orrery_dtype>(p.dtype);
    filled.forward = static_cast<orrery_port_use>(p.forward);
    filled.backward = static_cast<orrery_port_use>(p.backward);
    filled.batch = p.batch;
    filled.tokens = p.tokens;
    filled.heads = p.heads;
    filled.width = p.width;
    write(filled, port, "port");
  });
}

int64_t orrery_plan_program(const orrery_plan* plan, int rank, orrery_pass pass, char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    const Plan& known = plan_at(plan, rank);
    return give(to_text(known.program(rank, pass_in(known, pass))), text, text_size);
  });
}

int64_t orrery_plan_check(const orrery_plan* plan, int64_t at_most, int64_t* findings, char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    require(findings, "findings");
    *findings = 0;
    if (at_most < 0) refuse("at most ", at_most, " findings");
    CheckOptions options;
    if (at_most > 0) options.at_most = static_cast<std::size_t>(at_most);
    const std::vector<Finding> found = check(plan_at(plan, 0), options);
    std::string lines;
    for (const Finding& finding : found) lines += to_text(finding) + "\n";
    *findings = static_cast<std::int64_t>(found.size());
    return give(lines, text, text_size);
  });
}

orrery_status orrery_plan_cost(const orrery_plan* plan, int rank, orrery_pass pass, orrery_cost* cost) {
  return guarded(ToNobody{}, [&] {
    const Plan& known = plan_at(plan, rank);
    const Pass one = pass_in(known, pass);
    const ProgramCost c = orrery::cost(known.program(rank, one), known.problem);
    orrery_cost filled = ORRERY_COST_INIT;
    filled.steps = c.steps;
    filled.rounds = c.rounds;
    filled.bytes_sent = c.bytes_sent;
    filled.bytes_received = c.bytes_received;
    filled.pairs = c.pairs;
    filled.workspace_bytes = c.workspace_bytes;
    filled.kept_bytes = c.kept_bytes;
    filled.flops = one == Pass::forward ? known.problem.forward_flops() : known.problem.backward_flops();
    write(filled, cost, "cost");
  });
}
