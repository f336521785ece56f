// A warp's part of a matrix product, from fragments that it fetches as it goes.
#pragma once

#include <cstdint>

#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda {

// sums += A B, with A [16 kBlocks][16 kDepth] and B [16 kDepth][8 kColumns]. load_a(step, block, registers) brings the
// fragment of A at depth 16 step and row 16 block; load_b(step, pair, registers) that of B at column 16 pair, as
// ldmatrix does: b0 and b1 of the first eight columns, then of the others.
template <typename Element, int kDepth, int kBlocks, int kColumns, typename LoadA, typename LoadB>
__device__ __forceinline__ void add_product(float (&sums)[kBlocks][kColumns][4], const LoadA& load_a,
                                            const LoadB& load_b) {
  static_assert(kColumns % 2 == 0, "ldmatrix brings right operands for 16 columns");
  std::uint32_t a[kBlocks][4], b[kColumns / 2][4];
#pragma unroll
  for (int step = 0; step < kDepth; ++step) {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) load_a(step, block, a[block]);
#pragma unroll
    for (int pair = 0; pair < kColumns / 2; ++pair) load_b(step, pair, b[pair]);
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      const auto& right = b[column / 2];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        mma<Element>(sums[block][column], a[block], right[column % 2 * 2], right[column % 2 * 2 + 1]);
      }
    }
  }
}

}  // namespace orrery::kernels::cuda
