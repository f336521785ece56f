// The state of a warp's rows in the registers of its lanes, and its way from and to memory. Row g = lane / 4 of a block
// of 16, and g + 8, are a lane's, with two of every 8 columns; the quad of lanes that share a row have them all. Arrays
// named [blocks][2] are by block of 16 rows and by which of the two.
#pragma once

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/common/forward_tiles.cuh"
#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/state.cuh"

namespace orrery::kernels::cuda {

// The maximum of a row that has seen nothing, here. It is finite, so that no -inf - -inf arises from it: scores of
// -inf, which is what masked ones are, lie infinitely far below. In memory such a row has -inf.
inline constexpr float kNoMax = -FLT_MAX;

// What a lane knows of its rows.
template <typename Tiling>
struct ForwardRows {
  float accumulator[Tiling::kRowBlocks][Tiling::kColumnBlocks][4];
  float row_max[Tiling::kRowBlocks][2];
  float row_sum[Tiling::kRowBlocks][2];  // the lane's share: the quad's four make the sum
};
// The rows of one head of a tensor.
template <typename Element>
__device__ __forceinline__ Element* head_rows(const TensorView& tensor, int batch, int head) {
  return static_cast<Element*>(tensor.data) + batch * tensor.batch_stride + head * tensor.head_stride;
}

// The carried state, or the empty one.
template <typename Tiling>
__device__ __forceinline__ void load_state(ForwardRows<Tiling>& rows, const AttendForward& call,
                                           const ForwardPlace& at) {
  const int query_len = static_cast<int>(call.query.tokens), width = static_cast<int>(call.query.width);
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.first_row + at.lane_row() + 16 * b + 8 * half;
      const bool carried = !call.first && row < query_len;
      rows.row_max[b][half] = kNoMax;
      rows.row_sum[b][half] = 0.0f;
      if (carried) {
        const float carried_max = head_rows<float>(call.row_max, at.batch, at.head)[row * call.row_max.token_stride];
        rows.row_max[b][half] = fmaxf(carried_max, kNoMax);
        if (at.lane % 4 == 0) {
          rows.row_sum[b][half] = head_rows<float>(call.row_sum, at.batch, at.head)[row * call.row_sum.token_stride];
        }
      }
      const float* accumulator =
          head_rows<float>(call.accumulator, at.batch, at.head) + row * call.accumulator.token_stride + at.lane % 4 * 2;
#pragma unroll
      for (int c = 0; c < Tiling::kColumnBlocks; ++c) {
        float2 pair{0.0f, 0.0f};
        if (carried && 8 * c < width) pair = *reinterpret_cast<const float2*>(accumulator + 8 * c);
        rows.accumulator[b][c][2 * half] = pair.x;
        rows.accumulator[b][c][2 * half + 1] = pair.y;
      }
    }
  }
}

template <typename Tiling>
__device__ __forceinline__ void store_state(const ForwardRows<Tiling>& rows, const AttendForward& call,
                                            const ForwardPlace& at) {
  const int query_len = static_cast<int>(call.query.tokens), width = static_cast<int>(call.query.width);
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.first_row + at.lane_row() + 16 * b + 8 * half;
      const float row_sum = quad_sum(rows.row_sum[b][half]);
      if (row >= query_len) continue;
      if (at.lane % 4 == 0) {
        const float row_max = rows.row_max[b][half];
        head_rows<float>(call.row_max, at.batch, at.head)[row * call.row_max.token_stride] =
            row_max == kNoMax ? -INFINITY : row_max;
        head_rows<float>(call.row_sum, at.batch, at.head)[row * call.row_sum.token_stride] = row_sum;
      }
      float* accumulator =
          head_rows<float>(call.accumulator, at.batch, at.head) + row * call.accumulator.token_stride + at.lane % 4 * 2;
#pragma unroll
      for (int c = 0; c < Tiling::kColumnBlocks; ++c) {
        if (8 * c < width) {
          *reinterpret_cast<float2*>(accumulator + 8 * c) =
              make_float2(rows.accumulator[b][c][2 * half], rows.accumulator[b][c][2 * half + 1]);
        }
      }
    }
  }
}

// Divides, rounds and writes out and lse. The rows pass through `staging`, a tile of which nobody else touches the
// warp's own rows any more, so that out is written by 16 bytes.
template <typename Element, typename Tiling, typename Staging>
__device__ __forceinline__ void store_out(const ForwardRows<Tiling>& rows, const AttendForward& call,
                                          const ForwardPlace& at, Staging& staging) {
  const int query_len = static_cast<int>(call.query.tokens), width = static_cast<int>(call.query.width);
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int tile_row = at.lane_row() + 16 * b + 8 * half, row = at.first_row + tile_row;
      const float row_sum = quad_sum(rows.row_sum[b][half]);
      const float inverse = row_sum == 0.0f ? 0.0f : __frcp_rn(row_sum);
      if (row < query_len && at.lane % 4 == 0) {
        head_rows<float>(call.lse, at.batch, at.head)[row * call.lse.token_stride] =
            log_sum_exp(rows.row_max[b][half], row_sum);
      }
#pragma unroll
      for (int c = 0; c < Tiling::kColumnBlocks; ++c) {
        staging.pair(tile_row, 8 * c + at.lane % 4 * 2) =
            pack<Element>(rows.accumulator[b][c][2 * half] * inverse, rows.accumulator[b][c][2 * half + 1] * inverse);
      }
    }
  }
  __syncwarp();
  constexpr int kChunks = Tiling::kDim / Staging::kChunkElements;
  Element* const out = head_rows<Element>(call.out, at.batch, at.head);
#pragma unroll 4
  for (int i = at.lane; i < Tiling::kWarpRows * kChunks; i += kWarp) {
    const int tile_row = at.warp_row + i / kChunks, row = at.first_row + tile_row;
    const int chunk = i % kChunks, column = chunk * Staging::kChunkElements;
    if (row < query_len && column < width) {
      *reinterpret_cast<uint4*>(out + row * call.out.token_stride + column) = staging.chunk(tile_row, chunk);
    }
  }
}

// Adds the values that are not finite of the tiles that were made finite (nonfinite.cuh), those that `visits` does not
// call full, to what was written of the warp's rows that see them: out, or the accumulator. Seldom called, and so on
// memory, not on registers. By whole warps.
template <typename Element, typename Tiling>
__device__ __forceinline__ void add_nonfinite_values(const AttendForward& call, const ForwardPlace& at,
                                                     const KeyVisits<Tiling::kKeyTile>& visits) {
  const int query_len = static_cast<int>(call.query.tokens), key_len = static_cast<int>(call.key.tokens);
  const int width = static_cast<int>(call.query.width);
  __syncwarp();  // what other lanes have written is there
#pragma unroll 1
  for (int row = at.first_row + at.warp_row; row < min(at.first_row + at.warp_row + 16 * Tiling::kRowBlocks, query_len);
       ++row) {
    const KeyRange range = call.key_ranges.rows[row];
#pragma unroll 1
    for (int visit = 0; visit < visits.count(); ++visit) {
      const int first_key = visits.first_key(visit);
      if (visits.is_full(first_key)) continue;
#pragma unroll 1
      for (int key = first_key; key < min(first_key + Tiling::kKeyTile, key_len); ++key) {
        if (!((range.begin <= key && key < range.end) || (range.sink_begin <= key && key < range.sink_end))) continue;
        const Element* const value =
            head_rows<Element>(call.value, at.batch, at.kv_head) + key * call.value.token_stride;
#pragma unroll 1
        for (int column = at.lane; column < width; column += kWarp) {
          const float x = static_cast<float>(value[column]);
          if (is_finite(x)) continue;
          if (call.last) {
            Element& out = head_rows<Element>(call.out, at.batch, at.head)[row * call.out.token_stride + column];
            out = static_cast<Element>(static_cast<float>(out) + x);
          } else {
            head_rows<float>(call.accumulator, at.batch, at.head)[row * call.accumulator.token_stride + column] += x;
          }
        }
      }
    }
  }
}

}  // namespace orrery::kernels::cuda
