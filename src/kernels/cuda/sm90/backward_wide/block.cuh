// What the roles of the Hopper backward kernel for wide heads (attend_backward_wide.cuh) share: the shape of its tiles,
// and the shared memory of a block with the barriers that join them.
#pragma once

#include <cstdint>

#include "kernels/cuda/sm90/backward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kHeadDim_>
struct WideTiling {
  static constexpr int kHeadDim = kHeadDim_, kQueries = 64, kKeys = 64;
  static constexpr int kQueryStages = 2, kGradOutStages = kHeadDim == 192 ? 2 : 1, kScoreStages = 2;
  static constexpr int kConsumers = 2, kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kProducerRegisters = kHeadDim == 192 ? 40 : 24;
  static constexpr int kConsumerRegisters = kHeadDim == 192 ? 232 : 240;
  // 64 columns of dQ at a time: how many times the value consumer computes some, the first ones, and the key consumer;
  // and the places in which they leave them, 32 columns each.
  static constexpr int kPieces[2] = {kHeadDim == 192 ? 1 : 2, 2};
  static constexpr int kPlaces[2] = {2, kHeadDim == 192 ? 4 : 2};

  // Of the left operands of S^T and dP^T, K and V: steps of 16 columns that stay in registers with a tile.
  static constexpr int kHeldSteps[2] = {kHeadDim == 192 ? 6 : 0, kHeadDim == 192 ? 6 : 0};

  static constexpr std::int64_t kSectionBytes = 160 << 20;  // as BackwardTiling's, by measurement too

  static_assert(kHeadDim == 192 || kHeadDim == 256, "as kPieces");
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 504, "an SM has 65536 registers");
};

template <typename Element, typename Tiling>
struct WideShared {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr int kSteps = 8;  // a carrier may be some steps behind
  static constexpr int kWords = kKeys / 32;
  static constexpr int kGradColumns = 32;
  static constexpr int kMostPlaces = Tiling::kPlaces[1];

  // Panels of 64 columns, swizzled (sm90/ptx.cuh).
  struct alignas(1024) KeyTile {
    Element panels[kPanels][kKeys][kPanelColumns];
  };
  struct alignas(1024) QueryTile {
    Element panels[kPanels][kQueries][kPanelColumns];
  };
  // dS^T: a row a key.
  struct alignas(1024) ScoreTile {
    Element rows[kKeys][kQueries];
  };
  // P^T, of every thread of the value consumer what the same thread of the key consumer wants.
  struct Probabilities {
    float4 quads[kQueries / 8][kWarpgroup];
  };
  // Of dQ, 32 columns on their way, swizzled.
  struct alignas(1024) GradPanel {
    float rows[kQueries][kGradColumns];
  };
  struct StageRows {
    float lse[kQueries];    // times log2(e); +inf for a row that gets and gives nothing, NaN: nonfinite.cuh
    float delta[kQueries];  // times the scale, where dS is
    std::uint32_t seen[kWords][kQueries];  // bit k of word i: the query sees key 32 i + k; unless the step is full
  };

  KeyTile key, value;
  QueryTile query[Tiling::kQueryStages], grad_out[Tiling::kGradOutStages];
  ScoreTile grad_scores[Tiling::kScoreStages];
  GradPanel grad_query[Tiling::kPlaces[0] + Tiling::kPlaces[1]];
  Probabilities probabilities;
  StageRows rows[Tiling::kQueryStages];
  BackwardStep steps[kSteps];
  Walk walk;
  BackwardWork work;  // the producer's

  // Who arrives, and for whom. Warps arrive by one lane.
  Barrier keys_full, keys_empty;                              // the producer's copies; all consumers' warps
  Barrier landed[2];                                          // copies in which a producer has to bury rows
  Barrier rows_full[Tiling::kQueryStages];                    // the producer: rows and the step
  Barrier query_full[Tiling::kQueryStages];                   // the producer's copies
  Barrier query_empty[Tiling::kQueryStages];                  // all consumers' warps: Q and rows are no longer needed
  Barrier grad_out_full[Tiling::kGradOutStages];              // the producer's copies
  Barrier grad_out_empty[Tiling::kGradOutStages];             // all consumers' warps
  Barrier probabilities_full, probabilities_empty;            // the value consumer's warps; the key consumer's
  Barrier scores_full[Tiling::kScoreStages];                  // the key consumer's warps: dS is there
  Barrier scores_empty[Tiling::kScoreStages];                 // all consumers' warps: dQ is computed
  Barrier grad_query_full[Tiling::kConsumers][kMostPlaces];   // the warps of one consumer
  Barrier grad_query_empty[Tiling::kConsumers][kMostPlaces];  // its carrier

  __device__ __forceinline__ BackwardStep& step(std::uint32_t number) { return steps[number % kSteps]; }
  // The places of a consumer.
  __device__ __forceinline__ GradPanel* grads_of(int consumer) {
    return grad_query + (consumer == 0 ? 0 : Tiling::kPlaces[0]);
  }
};

}  // namespace orrery::kernels::cuda::sm90
