// What the roles of the Hopper backward kernel (attend_backward.cuh) share: the shape of its tiles, what it is called
// with, and the shared memory of a block with the barriers that join them.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/backward_args.cuh"
#include "kernels/cuda/key_ranges.hpp"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sm90/backward_walk.cuh"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/ring.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kHeadDim_>
struct BackwardTiling {
  static constexpr int kHeadDim = kHeadDim_, kQueries = 128 * 64 / kHeadDim, kKeys = 128;
  static constexpr int kStages = 2;  // of Q and dO, and of dS
  static constexpr int kConsumers = 2, kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
  // dQ of a step is kQueries x kHeadDim; a consumer's half are 64 of the queries, or else 64 of the columns.
  static constexpr bool kHalvesAreRows = kQueries == 128;
  // dV begins while dS^T is being found. With 128 queries there are no registers for that.
  static constexpr bool kEarlyValue = kQueries == 64;

  static_assert(kHeadDim == 64 || kHeadDim == 128, "two consumers share dQ in halves of 64 x 64");
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 504, "an SM has 65536 registers");
};

struct BackwardArgs {
  CUtensorMap query, grad_out;          // boxes of kQueries rows x 64 columns
  CUtensorMap key, value;               // boxes of kKeys rows x 64 columns
  Rows<const float> lse, delta;         // [batch, query_len, heads]
  CUtensorMap grad_query;               // boxes of 64 rows x 32 columns of floats
  Rows<float> grad_key, grad_value;     // [batch, key_len, kv_heads, width]
  const KeyRange* ranges;               // [query_len], or null
  const RangeBounds* bounds;            // [ceil(query_len / kRangeTile)], or null
  std::int32_t batch, kv_heads, group;  // heads = kv_heads * group
  std::int32_t query_len, key_len, width;
  std::int32_t tickets;     // tiles of keys x batch x kv_heads
  std::int32_t section;     // heads of keys, of the batch x kv_heads, whose tiles go side by side
  float scale, scale_log2;  // scale_log2 = scale * log2(e)
  std::int32_t* ticket;     // how many have been drawn
  std::int32_t* turns;      // [batch, heads, query tiles]: adders that are done, in parts; null: any order will do
};

// What a block does with a query tile and head; a tile of -1 says that there is no more to do.
struct BackwardStep {
  std::int32_t tile, head, turn;
  std::int32_t key_tile, batch, kv_head;
  bool full, first, last;  // full: every query sees every key. first, last: of the tile of keys
};

template <typename Element, typename Tiling>
struct BackwardShared {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr int kSteps = 8;  // a carrier may be some steps behind
  static constexpr int kWords = kKeys / 32;
  static constexpr int kGradColumns = 32;

  // Panels of 64 columns, swizzled (sm90/ptx.cuh).
  struct alignas(1024) KeyTile {
    Element panels[kPanels][kKeys][kPanelColumns];
  };
  struct alignas(1024) QueryTile {
    Element panels[kPanels][kQueries][kPanelColumns];
  };
  // dS^T: a row a key.
  struct alignas(1024) ScoreTile {
    Element panels[kQueries / kPanelColumns][kKeys][kPanelColumns];
  };
  // A consumer's half of dQ on its way: panels of 32 columns, swizzled.
  struct alignas(1024) QueryGrads {
    float panels[2][64][kGradColumns];
  };
  struct StageRows {
    float lse[kQueries];                   // times log2(e); +inf for a row that gets and gives nothing
    float delta[kQueries];                 // times the scale, where dS is
    std::uint32_t seen[kWords][kQueries];  // bit k of word i: the query sees key 32 i + k; unless the step is full
  };

  KeyTile key, value;
  QueryTile query[Tiling::kStages], grad_out[Tiling::kStages];
  ScoreTile grad_scores[Tiling::kStages];
  QueryGrads grad_query[Tiling::kConsumers];
  StageRows rows[Tiling::kStages];
  BackwardStep steps[kSteps];
  Walk walk;

  // Who arrives, and for whom. Warps arrive by one lane.
  Barrier keys_full, keys_empty;                 // the producer's copies; the consumers' warps, at the end of a tile
  Barrier rows_full[Tiling::kStages];            // the producer: rows and the step
  Barrier query_full[Tiling::kStages];           // the producer's copies
  Barrier query_empty[Tiling::kStages];          // the consumers' warps: Q and rows are no longer needed
  Barrier grad_out_full[Tiling::kStages];        // the producer's copies
  Barrier grad_out_empty[Tiling::kStages];       // the consumers' warps
  Barrier scores_full[Tiling::kStages];          // the consumers' warps: dS is there
  Barrier scores_empty[Tiling::kStages];         // the consumers' warps: dQ is computed
  Barrier grad_query_full[Tiling::kConsumers];   // the warps of one consumer
  Barrier grad_query_empty[Tiling::kConsumers];  // its carrier

  __device__ __forceinline__ BackwardStep& step(std::uint32_t number) { return steps[number % kSteps]; }
};

// dS is multiplied by the scale before it is rounded, which costs nothing, or dQ and dK are when they leave: small
// numbers of bf16 are as exact as others, those of fp16 are not.
template <typename Element>
inline constexpr bool kScaledScores = std::is_same_v<Element, __nv_bfloat16>;

// What the warp's lanes have done comes before the arrival of one of them.
__device__ __forceinline__ void arrive_as_warp(Barrier& barrier) {
  __syncwarp();
  if (thread_index() % kWarp == 0) barrier_arrive(barrier);
}

}  // namespace orrery::kernels::cuda::sm90
