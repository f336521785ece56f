// The verbs. Those that take a World are called by every rank of it, and return the exit code.
#pragma once

#include "launch/options.hpp"
#include "orrery/world.hpp"

namespace orrery::launch {

int run(World& world, const Options& options);  // also trace: the same, with the steps' times kept
int bench(World& world, const Options& options);
int check(const Options& options);
int info(const Options& options);

}  // namespace orrery::launch
