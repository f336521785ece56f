// What the roles of the Hopper backward kernel (kernel.cuh) share: the shape of its tiles, what it is called
// with, and the shared memory of a block with the barriers that join them.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/backward_args.cuh"
#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/key_ranges.hpp"
#include "kernels/cuda/sm90/backward/walk.cuh"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/ring.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kHeadDim_>
struct BackwardTiling {
  static constexpr int kHeadDim = kHeadDim_, kQueries = 128 * 64 / kHeadDim, kKeys = 128;
  static constexpr int kStages = 2;  // of dO, and of dS
  static constexpr int kQueryStages = 3;
  static constexpr int kConsumers = 2, kThreads = (1 + kConsumers) * kWarpgroup;
  // S^T and dP^T, 64 queries wide, need all that shared memory can give, half of it for the left operand. So K of the
  // first steps of 16 columns is kept in registers, as far as there are any.
  static constexpr int kKeySteps = kHeadDim == 128 ? 4 : 2;
  static constexpr int kProducerRegisters = kHeadDim == 128 ? 24 : 40;
  static constexpr int kConsumerRegisters = kHeadDim == 128 ? 240 : 232;
  // dQ of a step is kQueries x kHeadDim; a consumer's half are 64 of the queries, or else 64 of the columns.
  static constexpr bool kHalvesAreRows = kQueries == 128;

  // Of Q, dO and dQ of the heads that go side by side: by measurement (docs/lab/hopper-backward.md).
  static constexpr std::int64_t kSectionBytes = 16 << 20;

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
  TileOrder order;
  std::int32_t tickets;     // tiles of keys x batch x kv_heads
  float scale, scale_log2;  // scale_log2 = scale * log2(e)
  std::int32_t* ticket;     // how many have been drawn
  std::int32_t* turns;      // [batch, heads, query tiles]: adders that are done, in parts; null: any order will do

  KeyGradients key_gradients;
  Rows<std::uint16_t> key_out, value_out;  // as grad_key, of the kernel's Element
};

// The tile of keys that a ticket is for.
struct BackwardWork {
  std::int32_t key_tile, batch, kv_head;
};

// What a block does with a query tile and head; a tile of -1 says that there is no more to do.
struct BackwardStep {
  std::int32_t tile, head, turn;
  BackwardWork work;
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
  // At place_of() each query.
  struct StageRows {
    float lse[kQueries];    // times log2(e); +inf for a row that gets and gives nothing, NaN: nonfinite.cuh
    float delta[kQueries];  // times the scale, where dS is
    std::uint32_t seen[kWords][kQueries];  // bit k of word i: the query sees key 32 i + k; unless the step is full
  };

  KeyTile key, value;
  QueryTile query[Tiling::kQueryStages], grad_out[Tiling::kStages];
  ScoreTile grad_scores[Tiling::kStages];
  QueryGrads grad_query[Tiling::kConsumers];
  StageRows rows[Tiling::kQueryStages];
  BackwardStep steps[kSteps];
  Walk walk;
  BackwardWork work;  // the producer's, who is short of registers

  // Who arrives, and for whom. Warps arrive by one lane.
  Barrier keys_full, keys_empty;                 // the producer's copies; the consumers' warps, at the end of a tile
  Barrier rows_full[Tiling::kQueryStages];       // the producer: rows and the step
  Barrier query_full[Tiling::kQueryStages];      // the producer's copies
  Barrier query_empty[Tiling::kQueryStages];     // the consumers' warps: Q and rows are no longer needed
  Barrier grad_out_full[Tiling::kStages];        // the producer's copies
  Barrier grad_out_empty[Tiling::kStages];       // the consumers' warps
  Barrier scores_full[Tiling::kStages];          // the consumers' warps: dS is there
  Barrier scores_empty[Tiling::kStages];         // the consumers' warps: dQ is computed
  Barrier grad_query_full[Tiling::kConsumers];   // the warps of one consumer
  Barrier grad_query_empty[Tiling::kConsumers];  // its carrier

  // Where StageRows has a query of the step: the four of every 16 that a lane of a consumer has scores of, 0, 1, 8 and
  // 9 or the like, are side by side, one access.
  static __device__ __forceinline__ int place_of(int query) {
    return query / 16 * 16 + query % 8 / 2 * 4 + query % 16 / 8 * 2 + query % 2;
  }

  __device__ __forceinline__ BackwardStep& step(std::uint32_t number) { return steps[number % kSteps]; }
};

// dS is multiplied by the scale before it is rounded, which costs nothing, or dQ and dK are when they leave: small
// numbers of bf16 are as exact as others, those of fp16 are not.
template <typename Element>
inline constexpr bool kScaledScores = std::is_same_v<Element, __nv_bfloat16>;

// The gradients of keys that no query sees, where what is there may be anything. By one warp.
__device__ __forceinline__ void put_zeros(const BackwardArgs& args, const BackwardWork& work, int keys) {
  const auto [key_tile, batch, kv_head] = work;
  const std::int32_t first = key_tile * keys, last = min(first + keys, args.key_len);
  for (std::int32_t key = first; key < last; ++key) {
    for (int column = thread_index() % kWarp * 4; column < args.width; column += kWarp * 4) {
      if (args.key_gradients == KeyGradients::store) {
        store_four(args.grad_key.at(batch, key, kv_head) + column, 0, 0, 0, 0);
        store_four(args.grad_value.at(batch, key, kv_head) + column, 0, 0, 0, 0);
      } else {
        *reinterpret_cast<uint2*>(args.key_out.at(batch, key, kv_head) + column) = {0, 0};
        *reinterpret_cast<uint2*>(args.value_out.at(batch, key, kv_head) + column) = {0, 0};
      }
    }
  }
}

// Whose turn it is at a step's query tile and head. The sets of turns lie one behind the other.
template <typename Tiling>
__device__ __forceinline__ std::int32_t* turn_of(const BackwardArgs& args, const BackwardStep& step, int set = 0) {
  const std::int64_t heads = args.kv_heads * args.group;
  const std::int64_t line = (static_cast<std::int64_t>(set) * args.batch + step.work.batch) * heads + step.head;
  return args.turns + line * ((args.query_len - 1) / Tiling::kQueries + 1) + step.tile;
}

// What the warp's lanes have done comes before the arrival of one of them.
__device__ __forceinline__ void arrive_as_warp(Barrier& barrier) {
  __syncwarp();
  if (thread_index() % kWarp == 0) barrier_arrive(barrier);
}

}  // namespace orrery::kernels::cuda::sm90
