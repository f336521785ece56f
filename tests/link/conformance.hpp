// The suite (orrery/conformance.hpp), and what only a test program can see: that runs allocate nothing.
#pragma once

#include "orrery/world.hpp"

namespace orrery::test {

void conform_and_allocate_nothing(World& world);

}  // namespace orrery::test
