#include "verify/samples.hpp"

#include <algorithm>
#include <random>

namespace orrery {
namespace {

constexpr std::int64_t kSampledRows = 96;  // at least; and no fewer than one a rank

}  // namespace

std::vector<Sample> choose_samples(const Plan& plan, int heads, VerifyMode mode, std::uint64_t seed) {
  const AttentionProblem& problem = plan.problem;
  std::vector<Sample> samples;
  if (mode == VerifyMode::none) return samples;
  if (mode == VerifyMode::full) {
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      for (std::int64_t p = 0; p < problem.seq_len; ++p) {
        for (int h = 0; h < heads; ++h) samples.push_back({b, p, h});
      }
    }
    return samples;
  }
  std::mt19937_64 random(seed ^ 0x9e3779b97f4a7c15ULL);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  const int world_size = plan.topology.world_size;
  const std::int64_t a_rank = std::max<std::int64_t>(1, kSampledRows / world_size);
  for (int rank = 0; rank < world_size; ++rank) {
    const std::int64_t tokens = plan.layout.tokens(rank);
    for (std::int64_t i = 0; i < a_rank && tokens > 0; ++i) {
      // With one row a rank, ranks take turns.
      const std::int64_t which = a_rank == 1 ? rank % 3 : i;
      const std::int64_t index = which == 0 ? 0 : which == 1 ? tokens - 1 : below(tokens);
      samples.push_back({below(problem.batch), plan.layout.position(rank, index), static_cast<int>(below(heads))});
    }
  }
  return samples;
}

}  // namespace orrery
