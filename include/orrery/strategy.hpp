// Strategies: pure functions from a problem and a placement to each rank's program. One is asked for one rank at a
// time, so a run of a thousand ranks builds a thousandth of the world in each.
//
// A strategy is named in a text, with values for its options: "ring:keys=65536,keep=no". Its row in the registry says
// which options there are, so that help, reports and refusals know them from there.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "orrery/costs.hpp"
#include "orrery/layout.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"
#include "orrery/topology.hpp"

namespace orrery {

enum class OptionKind {
  number,  // a whole number, at least 0
  flag,    // yes or no
  word,    // one of `words`
};

// What a strategy leaves to its caller.
struct StrategyOption {
  std::string_view name;
  OptionKind kind = OptionKind::number;
  std::string_view standard;  // the value that it has when nobody gives one
  std::string_view meaning;   // in one sentence
  // Whether the strategy chooses a value that suits the placement where none is given. Its text may say "auto" then.
  bool chosen = false;
  std::string_view words = {};  // of a word, separated by '|'
};
// "keys=N", "keep=yes|no", "over=nodes|heads".
std::string usage(const StrategyOption& option);

// The values of a strategy's options: those given, and for all others the standard ones.
class StrategyOptions {
 public:
  StrategyOptions() = default;  // of a strategy that has none
  explicit StrategyOptions(std::span<const StrategyOption> known) : known_(known), given_(known.size()) {}

  // Throws ErrorCode::invalid when the value is not of the option's kind; of "auto" nothing is taken down.
  void give(const StrategyOption& option, std::string_view value);
  bool given(std::string_view name) const { return !given_[index(name)].empty(); }
  void choose(std::string_view name, std::int64_t value) { given_[index(name)] = std::to_string(value); }

  std::int64_t number(std::string_view name) const;
  bool flag(std::string_view name) const { return text_of(name) == "yes"; }
  std::string_view word(std::string_view name) const { return text_of(name); }
  std::string_view text_of(std::string_view name) const;

  std::span<const StrategyOption> known() const { return known_; }
  // "keys=0,backward-keys=0,keep=yes": all of them, in the order of the registry. Empty when there are none.
  std::string text() const;

 private:
  std::size_t index(std::string_view name) const;

  std::span<const StrategyOption> known_;
  std::vector<std::string> given_;  // beside known_; empty where nothing was given
};

struct Placement {
  const AttentionProblem& problem;
  const Layout& layout;
  const Topology& topology;
  const Costs& costs;
  const StrategyOptions& options;
  bool backward = false;  // a backward run follows the forward run
};

struct Strategy {
  std::string_view name;
  std::string_view summary;
  RankProgram (*build)(const Placement&, Pass, int rank);
  std::span<const StrategyOption> options = {};
  // Chooses what was not given and has another value than the standard one where that suits the placement.
  void (*choose)(const Placement&, StrategyOptions&) = nullptr;
  // Why this strategy cannot serve the placement, in one sentence; empty when it can. Null: it serves all.
  std::string (*rejects)(const Placement&) = nullptr;

  bool has(std::string_view option) const;
};

// All strategies, in the order in which they are listed to people.
std::span<const Strategy> strategies();
// Refused (ErrorCode::invalid) with the list of names when there is none of that name.
const Strategy& find_strategy(std::string_view name);

// The text of a strategy, taken apart. The name may be "auto", whose options go to the strategy that is chosen.
struct StrategyText {
  std::string name;
  std::vector<std::pair<std::string, std::string>> options;  // names and values, in the order given

  bool has(std::string_view option) const;
  std::string text() const;
};
// Refused: a text of another form, an option given twice.
StrategyText parse_strategy(std::string_view text);
// The options of a text for the strategy that serves it. Refused, with a list of what there is: an option that it does
// not have, or of "auto" that no strategy has; a value that is not of the option's kind.
StrategyOptions options_for(const Strategy& strategy, const StrategyText& text);

}  // namespace orrery
