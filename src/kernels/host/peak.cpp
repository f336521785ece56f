// Independent multiply-adds that never leave the registers: enough of them to hide the latency, few enough to need no
// spills. The best of several short runs is taken, since anything else on the core can only slow a run down.
#include "kernels/host/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/peak.cpp"
#include "hwy/foreach_target.h"

#include <algorithm>
#include <chrono>

#include "kernels/host/peak.hpp"
#include "kernels/host/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

// Does kChains * kLanes * rounds multiply-adds; the sum keeps them from being left out.
struct FmaLoop {
  static constexpr int kChains = 12;
  static constexpr int kFlopsPerRound = 2 * kChains * kLanes;
};

int fma_flops_per_round() {
  return FmaLoop::kFlopsPerRound;
}

float fma_loop(int rounds, float seed) {
  const FloatTag df;
  const auto factor = hn::Set(df, 1.0f - seed), term = hn::Set(df, seed);
  FloatVec chains[FmaLoop::kChains];
  for (int i = 0; i < FmaLoop::kChains; ++i) chains[i] = hn::Set(df, static_cast<float>(i));
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < FmaLoop::kChains; ++i) chains[i] = hn::MulAdd(chains[i], factor, term);
  }
  for (int i = 1; i < FmaLoop::kChains; ++i) chains[0] = hn::Add(chains[0], chains[i]);
  return hn::GetLane(chains[0]);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(fma_flops_per_round);
HWY_EXPORT(fma_loop);

double measured_fma_peak_flops() {
  constexpr int kRounds = 200000, kRuns = 15;
  double best_seconds = 1e9;
  volatile float sink = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    sink = HWY_DYNAMIC_DISPATCH(fma_loop)(kRounds, 0x1p-10f);
    best_seconds =
        std::min(best_seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  (void)sink;
  return HWY_DYNAMIC_DISPATCH(fma_flops_per_round)() * static_cast<double>(kRounds) / best_seconds;
}

std::string simd_target_name() {
  const std::int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);  // the best target has the lowest bit
}

}  // namespace orrery::kernels
#endif
