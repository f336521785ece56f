// One function a strategy file, for the registry.
#pragma once

#include "orrery/strategy.hpp"

namespace orrery {

const Strategy& ring_strategy();
const Strategy& gather_strategy();

}  // namespace orrery
