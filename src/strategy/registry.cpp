#include <string>

#include "orrery/error.hpp"
#include "strategy/strategies.hpp"

namespace orrery {

std::span<const Strategy> strategies() {
  static const Strategy kAll[] = {
#define ORRERY_STRATEGY(name) name##_strategy(),
#include "strategy/strategies.def"
#undef ORRERY_STRATEGY
  };
  return kAll;
}

const Strategy& find_strategy(std::string_view name) {
  std::string known;
  for (const Strategy& s : strategies()) {
    if (s.name == name) return s;
    known += (known.empty() ? "" : ", ") + std::string(s.name);
  }
  refuse("there is no strategy '", name, "'; there are: ", known);
}

}  // namespace orrery
