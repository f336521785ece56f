// How the backward kernel divides its work: tiles of queries and keys, and each of the five products among the warps of
// a block. A warp's patch should be as square as registers allow, for the operands that it reads from shared memory
// grow with the sum of its sides and the products with their area. Accumulators decide how large it can be: dK and dV
// take key tile x head_dim / 64 / threads registers in all of a thread's 255, S and dP live beside them.
#pragma once

#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda {

template <int kHeadDim_, int kQueries_, int kKeys_, int kSides_, int kDqRowWarps_, int kStages_,
          int kBlocksPerProcessor_>
struct BackwardTiling {
  static constexpr int kHeadDim = kHeadDim_, kQueries = kQueries_, kKeys = kKeys_;
  // Warps lie in a grid of key rows x sides. A warp has the scores of kWarpKeys x kSideQueries, and dK and dV of
  // kWarpKeys x kSideColumns; of dQ it has kDqRows x kDqColumns.
  static constexpr int kSides = kSides_, kDqRowWarps = kDqRowWarps_;
  static constexpr int kWarpKeys = 32;
  static constexpr int kWarps = kKeys / kWarpKeys * kSides, kThreads = kWarps * kWarp;
  static constexpr int kSideQueries = kQueries / kSides, kSideColumns = kHeadDim / kSides;
  static constexpr int kDqRows = kQueries / kDqRowWarps, kDqColumns = kHeadDim / (kWarps / kDqRowWarps);
  // Buffers of Q and dO. With one, the next step's are loaded while dQ is computed.
  static constexpr int kStages = kStages_;
  static constexpr int kBlocksPerProcessor = kBlocksPerProcessor_;

  static_assert(kKeys % kWarpKeys == 0 && kWarps % kDqRowWarps == 0, "warps form whole grids");
  static_assert(kSideQueries % 16 == 0 && kSideColumns % 16 == 0, "sides are whole fragments");
  static_assert(kDqRows % 16 == 0 && kDqColumns % 16 == 0, "patches of dQ are whole fragments");
  static_assert(kStages == 1 || kStages == 2, "the loop knows one buffer or two");
};

// For a head_dim: the fast tiling, and one that fits into kNarrowSharedBytes; at 256 none does.
//                                                                    Q   K sides dQ stages blocks
template <int kHeadDim>
struct BackwardTilings;
template <>
struct BackwardTilings<32> {
  using Wide = BackwardTiling<32, 64, 64, 2, 2, 2, 3>;
  using Narrow = Wide;
};
template <>
struct BackwardTilings<64> {
  using Wide = BackwardTiling<64, 128, 128, 2, 4, 2, 1>;
  using Narrow = BackwardTiling<64, 64, 128, 2, 2, 2, 1>;
};
template <>
struct BackwardTilings<96> {
  using Wide = BackwardTiling<96, 64, 128, 2, 4, 2, 1>;
  using Narrow = BackwardTiling<96, 64, 64, 2, 2, 2, 2>;
};
template <>
struct BackwardTilings<128> {
  using Wide = BackwardTiling<128, 64, 128, 2, 2, 2, 1>;
  using Narrow = BackwardTiling<128, 64, 64, 4, 2, 1, 1>;
};
template <>
struct BackwardTilings<192> {
  using Wide = BackwardTiling<192, 64, 64, 4, 2, 2, 1>;
  using Narrow = BackwardTiling<192, 64, 32, 4, 2, 1, 1>;
};
template <>
struct BackwardTilings<256> {
  using Wide = BackwardTiling<256, 64, 64, 4, 2, 1, 1>;
  using Narrow = Wide;
};

}  // namespace orrery::kernels::cuda
