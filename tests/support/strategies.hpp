// Every strategy of the registry, for tests that hold whatever the strategy is: one that is added is tested by them
// all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "orrery/strategy.hpp"

namespace orrery::test {

inline std::vector<std::string> strategy_names() {
  std::vector<std::string> names;
  for (const Strategy& strategy : strategies()) names.emplace_back(strategy.name);
  return names;
}

// The text with a value for an option, where the strategy has one of that name.
inline std::string with(const std::string& strategy, std::string_view option, std::string_view value) {
  StrategyText text = parse_strategy(strategy);
  if (find_strategy(text.name).has(option)) text.options.emplace_back(option, value);
  return text.text();
}

// A ring that takes blocks together while they have so many keys.
inline std::string ring_with(std::int64_t keys, std::int64_t backward_keys, bool keep = true) {
  return "ring:keys=" + std::to_string(keys) + ",backward-keys=" + std::to_string(backward_keys) +
         (keep ? "" : ",keep=no");
}

// Every strategy with every value of its flags and words; numbers are the standard ones.
inline std::vector<std::string> strategy_texts() {
  std::vector<std::string> texts;
  for (const Strategy& strategy : strategies()) {
    std::vector<std::string> mine = {std::string(strategy.name)};
    for (const StrategyOption& option : strategy.options) {
      if (option.kind == OptionKind::number) continue;
      const std::string_view words = option.kind == OptionKind::flag ? "yes|no" : option.words;
      std::vector<std::string> more;
      for (std::size_t begin = 0, end = 0; end != std::string_view::npos; begin = end + 1) {
        end = words.find('|', begin);
        for (const std::string& text : mine) more.push_back(with(text, option.name, words.substr(begin, end - begin)));
      }
      mine = more;
    }
    texts.insert(texts.end(), mine.begin(), mine.end());
  }
  return texts;
}

}  // namespace orrery::test
