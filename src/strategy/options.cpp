// The text of a strategy: NAME[:OPTION=VALUE,...].
#include <algorithm>
#include <charconv>
#include <optional>

#include "orrery/error.hpp"
#include "orrery/strategy.hpp"

namespace orrery {
namespace {

std::string usages(std::span<const StrategyOption> options) {
  std::string list;
  for (const StrategyOption& option : options) list += (list.empty() ? "" : ", ") + usage(option);
  return list.empty() ? "none" : list;
}

const StrategyOption* find(std::span<const StrategyOption> options, std::string_view name) {
  const auto found = std::find_if(options.begin(), options.end(), [&](const auto& o) { return o.name == name; });
  return found == options.end() ? nullptr : &*found;
}

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t number = 0;
  const auto [stop, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (fault != std::errc() || stop != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

bool is_one_of(std::string_view words, std::string_view word) {
  while (true) {
    const std::size_t end = words.find('|');
    if (!word.empty() && words.substr(0, end) == word) return true;
    if (end == std::string_view::npos) return false;
    words.remove_prefix(end + 1);
  }
}

// Why there is no such option, and which there are.
[[noreturn]] void refuse_option(const std::string& name, const Strategy* strategy) {
  if (strategy != nullptr) {
    refuse("strategy ", strategy->name, " has no option '", name, "'; its options are: ", usages(strategy->options));
  }
  std::string all;
  for (const Strategy& each : strategies()) {
    if (!each.options.empty()) all += concat(all.empty() ? "" : "; ", each.name, ": ", usages(each.options));
  }
  refuse("no strategy has an option '", name, "'; there are, of ", all);
}

}  // namespace

std::string usage(const StrategyOption& option) {
  const std::string_view values = option.kind == OptionKind::number ? "N"
                                  : option.kind == OptionKind::flag ? "yes|no"
                                                                    : option.words;
  return concat(option.name, "=", values, option.chosen ? "|auto" : "");
}

void StrategyOptions::give(const StrategyOption& option, std::string_view value) {
  if (option.chosen && value == "auto") return;
  std::string& given = given_[index(option.name)];
  if (option.kind == OptionKind::number) {
    const std::optional<std::int64_t> number = number_in(value);
    if (!number) refuse("'", option.name, "=", value, "' is not ", usage(option), ", N a whole number of at least 0");
    given = std::to_string(*number);
  } else {
    const std::string_view words = option.kind == OptionKind::flag ? "yes|no" : option.words;
    if (!is_one_of(words, value)) refuse("'", option.name, "=", value, "' is not ", usage(option));
    given = value;
  }
}

std::size_t StrategyOptions::index(std::string_view name) const {
  const StrategyOption* const option = find(known_, name);
  ORRERY_CHECK(option != nullptr, "a strategy asks for an option ", name, "; it has: ", usages(known_));
  return static_cast<std::size_t>(option - known_.data());
}

std::string_view StrategyOptions::text_of(std::string_view name) const {
  const std::size_t at = index(name);
  return given_[at].empty() ? known_[at].standard : std::string_view(given_[at]);
}

std::int64_t StrategyOptions::number(std::string_view name) const {
  return number_in(text_of(name)).value();
}

std::string StrategyOptions::text() const {
  std::string all;
  for (const StrategyOption& option : known_) {
    all += concat(all.empty() ? "" : ",", option.name, "=", text_of(option.name));
  }
  return all;
}

bool Strategy::has(std::string_view option) const {
  return find(options, option) != nullptr;
}

std::string StrategyText::text() const {
  std::string all = name;
  for (const auto& [option, value] : options) all += concat(all == name ? ":" : ",", option, "=", value);
  return all;
}

bool StrategyText::has(std::string_view option) const {
  return std::any_of(options.begin(), options.end(), [&](const auto& given) { return given.first == option; });
}

StrategyText parse_strategy(std::string_view text) {
  const std::size_t colon = text.find(':');
  StrategyText parsed{std::string(text.substr(0, colon)), {}};
  if (colon == std::string_view::npos) return parsed;
  std::string_view rest = text.substr(colon + 1);
  for (bool more = true; more;) {
    const std::size_t comma = rest.find(',');
    const std::string_view one = rest.substr(0, comma);
    const std::size_t equals = one.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      refuse("strategy '", text, "': '", one, "' is not OPTION=VALUE, and options are separated by commas");
    }
    std::string name(one.substr(0, equals));
    if (parsed.has(name)) refuse("strategy '", text, "': option ", name, " is given twice");
    parsed.options.emplace_back(std::move(name), one.substr(equals + 1));
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  return parsed;
}

StrategyOptions options_for(const Strategy& strategy, const StrategyText& text) {
  StrategyOptions options(strategy.options);
  const bool any = text.name == "auto";
  for (const auto& [name, value] : text.options) {
    if (const StrategyOption* const own = find(strategy.options, name)) {
      options.give(*own, value);
      continue;
    }
    if (!any) refuse_option(name, &strategy);
    // Of another strategy that might have been chosen: checked all the same.
    const StrategyOption* theirs = nullptr;
    for (const Strategy& other : strategies()) {
      if ((theirs = find(other.options, name)) == nullptr) continue;
      StrategyOptions(other.options).give(*theirs, value);
      break;
    }
    if (theirs == nullptr) refuse_option(name, nullptr);
  }
  return options;
}

}  // namespace orrery
