// One function a strategy file, for the registry: ring_strategy(), gather_strategy(), and so on.
#pragma once

#include "orrery/strategy.hpp"

namespace orrery {

#define ORRERY_STRATEGY(name) const Strategy& name##_strategy();
#include "strategy/strategies.def"
#undef ORRERY_STRATEGY

}  // namespace orrery
