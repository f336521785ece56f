// What every world must do, for whoever brings a transport: a world on which all cases pass carries every program, and
// finds out when a rank goes wrong. All ranks call a case together; with two, three and more of them each shows
// something of its own.
#pragma once

#include <span>
#include <string_view>

#include "orrery/world.hpp"

namespace orrery {

struct ConformanceCase {
  std::string_view name, shows;
  // Rank 1 goes wrong on purpose, and the world is good for nothing but closing afterwards. Such a case takes the
  // world's timeout, for which two seconds are enough, and some seconds more.
  bool fails = false;
};

std::span<const ConformanceCase> conformance_cases();
// Runs one case, or all that leave the world good. Throws ErrorCode::bug with what was expected and what was met, and
// ErrorCode::invalid for a case that there is not. It speaks of the memory of hosts: a world over NCCL refuses.
void conform(World& world, std::string_view name);
void conform(World& world);

}  // namespace orrery
