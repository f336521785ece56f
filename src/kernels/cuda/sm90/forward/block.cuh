// What the roles of the Hopper forward kernel (kernel.cuh) share: the shape of its tiles, what it is called with, a
// tile of rows and what it sees, and its shared memory.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/common/forward_tiles.cuh"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/ring.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kDim_, int kKeyTile_, int kConsumers_, bool kTurns_>
struct ForwardTiling {
  static constexpr int kDim = kDim_, kKeyTile = kKeyTile_, kConsumers = kConsumers_;
  static constexpr bool kTurns = kTurns_;                   // whether consumers take turns at issuing
  static constexpr int kStages = 2;                         // of keys, and of values
  static constexpr int kQueryStages = kDim <= 128 ? 2 : 1;  // shared memory has room for no more of the wider
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kConsumerRows = 64, kQueryTile = kConsumers * kConsumerRows;
  static constexpr int kPanels = (kDim + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kRowBlocks = 1, kColumnBlocks = kDim / 8;          // of a warp, as ForwardRows has them
  static constexpr int kScores = kKeyTile / 2, kAccumulators = kDim / 2;  // registers of a thread
  static constexpr int kProducerRegisters = kConsumers == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 232 : 160;
  // Whether a row's maximum may lag as far as its sum allows (slack_of()), or else by one: with two consumers the first
  // makes code with fewer powers beside P V at 128, and with spills at 256.
  static constexpr bool kSlackBySum = kConsumers == 3;
  static_assert(kConsumers == 2 || kConsumers == 3, "registers are divided for these");
  static_assert(kConsumerRows == kRangeTile, "range bounds are given for the rows of a consumer");
  static_assert(kDim % 32 == 0 && kDim <= 256, "an accumulator is one product wide, and out leaves by 32 columns");
  static_assert(kKeyTile % 16 == 0, "a product's depth goes in steps of 16");
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kThreads / 8 * 8 * (1 + kConsumers),
                "registers are redistributed, not made");
};

inline constexpr int kInspectors = kWarpgroup / kWarp - 1;

// What the kernel is called with. Maps: boxes of kQueryTile rows of query, of kKeyTile of key and value.
struct ForwardLaunch {
  AttendForward call;
  ForwardOrder order;
  float scale_log2;      // positive; scores times it are in units of log 2
  std::int32_t tickets;  // tiles of rows
  std::int32_t* ticket;  // 0 at the launch
};
struct ForwardMaps {
  CUtensorMap query, key, value;
};

// Of a consumer: [begin, end), from the first visit of which any of its rows sees something to the last, or all visits
// where consumers take turns, for one that passes a visit over would stop the others; [clear_begin, clear_end), visits
// that need no mask, which may be none or reach beyond those.
struct OwnVisits {
  int begin, end, clear_begin, clear_end;
};

// A tile of rows: whose they are, and the keys they see, all together and by consumer. `batch` -1: there are no more.
template <typename Tiling>
struct ForwardWork {
  int first_row, batch, head;
  KeyVisits<Tiling::kKeyTile> visits;
  OwnVisits own[Tiling::kConsumers];
  bool made_finite = false;  // any of its tiles of values
};

// A tile of values to be inspected: its stage, or -1 when there are no more, and the tile of rows that it is for.
struct Inspection {
  int stage;
  std::uint32_t tile;
};

template <typename Element, int kRows, int kPanels>
struct alignas(kSwizzleRows* kPanelRowBytes) Panels {
  Element elements[kPanels][kRows][kPanelColumns];
  static constexpr int kPanelBytes = kRows * kPanelRowBytes, kBytes = kPanels * kPanelBytes;
  static_assert(kPanelBytes % (kSwizzleRows * kPanelRowBytes) == 0, "panels keep to the swizzle's period");
};

template <typename Element, typename Tiling>
struct ForwardShared {
  Panels<Element, Tiling::kQueryTile, Tiling::kPanels> query[Tiling::kQueryStages];
  Panels<Element, Tiling::kKeyTile, Tiling::kPanels> key[Tiling::kStages], value[Tiling::kStages];
  ForwardWork<Tiling> work[Tiling::kQueryStages + 1];  // a consumer reads it even when it has given back Q
  float nowhere;                                       // of stay_behind()
  Inspection inspections[Tiling::kStages];
  Barrier query_full[Tiling::kQueryStages], query_empty[Tiling::kQueryStages];
  Barrier key_full[Tiling::kStages], key_empty[Tiling::kStages];
  Barrier value_full[Tiling::kStages], value_empty[Tiling::kStages];
  Barrier landed[Tiling::kStages];  // values to be inspected

  __device__ __forceinline__ ForwardWork<Tiling>& work_at(std::uint32_t tile) {
    return work[tile % (Tiling::kQueryStages + 1)];
  }
};

}  // namespace orrery::kernels::cuda::sm90
