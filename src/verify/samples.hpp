// Which rows are verified: all of them, or a sample drawn alike on every rank. The sample takes the first and the last
// token of every shard, where layouts go wrong first, and random ones between.
#pragma once

#include <cstdint>
#include <vector>

#include "orrery/plan.hpp"
#include "orrery/verify.hpp"

namespace orrery {

struct Sample {
  std::int64_t batch = 0, position = 0;
  int head = 0;
};

std::vector<Sample> choose_samples(const Plan& plan, int heads, VerifyMode mode, std::uint64_t seed);

}  // namespace orrery
