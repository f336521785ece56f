// A block of threads has 64 query rows of one head and goes through the tiles of keys they meet. For each it computes
// the scores, 64 columns of the head at a time; brings the rows' maxima and sums up to date; and adds P V to the
// accumulator, which lies in registers, again 64 columns at a time.
#include <cmath>

#include "device/check.hpp"
#include "kernels/cuda/common/sm_share.cuh"
#include "kernels/cuda/common/state.cuh"
#include "kernels/cuda/fp32/attend_fp32.hpp"
#include "kernels/cuda/fp32/products.cuh"

namespace orrery::kernels::cuda {
namespace fp32 {
namespace {

struct Forward {
  Matrix query, key, value, accumulator, row_max, row_sum, out, lse;
  KeyRanges key_ranges;
  std::int64_t query_len;
  int key_len, batch, heads, group, head_dim;
  // scale * log2(e) as the sum of two floats: a score in units of log 2 then has no error but that of its sum.
  float factor, factor_rest;
  bool first, last;
};

// Both operands of a product. P takes the place of the queries.
struct Shared {
  Tile left, right;
};

// The state of a thread's rows ty + 16 i.
template <int kChunks>
struct RowStates {
  float max[kPart], sum[kPart];
  Part accumulator[kChunks];  // columns 64 c + 4 tx + j

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      max[i] = kMinusInfinity;
      sum[i] = 0.0f;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int j = 0; j < kPart; ++j) accumulator[c].at[i][j] = 0.0f;
      }
    }
  }
};

// Between the 16 lanes that hold a row.
__device__ float max_of_row(float value) {
#pragma unroll
  for (int apart = kSpread / 2; apart > 0; apart /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, apart));
  return value;
}
__device__ float sum_of_row(float value) {
#pragma unroll
  for (int apart = kSpread / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
  return value;
}

// Turns scores into P and brings maximum and sum up to date; rescale[i] is what the accumulator's rows are due.
template <int kChunks>
__device__ void softmax(const Forward& call, Part& scores, RowStates<kChunks>& rows, float (&rescale)[kPart],
                        const KeyRange (&ranges)[kPart], int first_key) {
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    unsigned seen = 0;
    float largest = kMinusInfinity;
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      if (!sees(ranges[i], first_key + thread_x() + kSpread * j)) continue;
      seen |= 1u << j;
      largest = fmaxf(largest, scores.at[i][j] * call.factor);
    }
    const float new_max = fmaxf(rows.max[i], ceilf(max_of_row(largest)));
    const float base = new_max == kMinusInfinity ? 0.0f : new_max;  // of a row that has seen nothing, any
    rescale[i] = power_of_two(rows.max[i] - base);
    rows.max[i] = new_max;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      const float score = scores.at[i][j];
      const float p = exp2f(fmaf(score, call.factor_rest, fmaf(score, call.factor, -base)));
      // -inf times a negative rest would be +inf.
      scores.at[i][j] = (seen >> j & 1u) != 0 && score * call.factor != kMinusInfinity ? p : 0.0f;
      sum += scores.at[i][j];
    }
    rows.sum[i] = fmaf(rows.sum[i], rescale[i], sum_of_row(sum));
  }
}

template <int kChunks>
constexpr int kBlocksPerSm = kChunks < 4 ? 2 : 1;

// The work of one block.
template <int kChunks>
__device__ __forceinline__ void forward_tile(const Forward& call, Shared& shared, unsigned block) {
  const auto rows_of_tile = static_cast<unsigned>(call.batch * call.heads);
  const std::int64_t tiles = (call.query_len + kTile - 1) / kTile;
  const std::int64_t tile = tiles - 1 - block / rows_of_tile;  // under a causal mask the longest work comes first
  const int unit = static_cast<int>(block % rows_of_tile);
  const int batch = unit / call.heads, head = unit % call.heads, kv_head = head / call.group;
  const std::int64_t first_row = tile * kTile;
  const int row_count = static_cast<int>(min(call.query_len - first_row, static_cast<std::int64_t>(kTile)));

  const KeyTiles visits(call.key_ranges, tile, call.key_len);
  if (visits.none() && !call.first && !call.last) return;

  RowStates<kChunks> rows;
  KeyRange ranges[kPart] = {};
  rows.clear();
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int row = thread_y() + kSpread * i;
    if (row >= row_count) continue;
    ranges[i] = range_of(call.key_ranges, first_row + row, call.key_len);
    if (call.first) continue;
    rows.max[i] = *call.row_max.at(batch, first_row + row, head);
    rows.sum[i] = *call.row_sum.at(batch, first_row + row, head);
    const float* accumulator = call.accumulator.at(batch, first_row + row, head);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < kPart; ++j) {
        const int column = c * kTile + kPart * thread_x() + j;
        if (column < call.head_dim) rows.accumulator[c].at[i][j] = accumulator[column];
      }
    }
  }

  const HeadRows query(call.query, batch, first_row, head, row_count, call.head_dim);
  for (int t = visits.first(); t < visits.end(); t = visits.after(t)) {
    const int first_key = t * kTile, key_count = min(call.key_len - first_key, kTile);
    const HeadRows key(call.key, batch, first_key, kv_head, key_count, call.head_dim);
    const HeadRows value(call.value, batch, first_key, kv_head, key_count, call.head_dim);
    Part scores = {};
#pragma unroll 1
    for (int c = 0; c < kChunks; ++c) {
      __syncthreads();
      load(shared.left, query, c * kTile);
      load(shared.right, key, c * kTile);
      arrived();
      multiply_nt(scores, shared.left, shared.right);
    }
    __syncthreads();
    load(shared.right, value, 0);
    float rescale[kPart];
    softmax(call, scores, rows, rescale, ranges, first_key);
    store(shared.left, scores);
    const bool cut = is_cut(call.key_ranges, tile, first_key, call.key_len);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c > 0) {
        __syncthreads();
        load(shared.right, value, c * kTile);
      }
      arrived();
      Part product = {};  // from zero, so that small terms are not lost (docs/design/0004-small-terms.md)
      if (cut && any_nonfinite(shared.right)) {
        multiply_nn_seen(product, shared.left, shared.right,
                         [&](int i, int depth) { return !sees(ranges[i], first_key + depth); });
      } else {
        multiply_nn(product, shared.left, shared.right);
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
#pragma unroll
        for (int j = 0; j < kPart; ++j) {
          float& sum = rows.accumulator[c].at[i][j];
          sum = fmaf(sum, rescale[i], product.at[i][j]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int row = thread_y() + kSpread * i;
    if (row >= row_count) continue;
    const bool empty = rows.sum[i] == 0.0f;
    float* to = (call.last ? call.out : call.accumulator).at(batch, first_row + row, head);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < kPart; ++j) {
        const int column = c * kTile + kPart * thread_x() + j;
        const float sum = rows.accumulator[c].at[i][j];
        if (column < call.head_dim) to[column] = !call.last ? sum : empty ? 0.0f : sum / rows.sum[i];
      }
    }
    if (thread_x() != 0) continue;
    if (call.last) {
      *call.lse.at(batch, first_row + row, head) = log_sum_exp(rows.max[i], rows.sum[i]);
    } else {
      *call.row_max.at(batch, first_row + row, head) = rows.max[i];
      *call.row_sum.at(batch, first_row + row, head) = rows.sum[i];
    }
  }
}

// Share: SmShare, or nothing.
template <int kChunks, typename... Share>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<kChunks>) forward(Forward call, Share... share) {
  __shared__ Shared shared;
  if constexpr (sizeof...(Share) == 0) {
    forward_tile<kChunks>(call, shared, blockIdx.x);
  } else {
    __shared__ std::int32_t ticket;
    for_each_ticket(share..., ticket, [&] { forward_tile<kChunks>(call, shared, static_cast<unsigned>(ticket)); });
  }
}

}  // namespace
}  // namespace fp32

void attend_forward_fp32(const AttendForward& call, device::StreamHandle stream) {
  const TensorView& q = call.query;
  const double factor = static_cast<double>(call.scale) * M_LOG2E;
  const auto rounded = static_cast<float>(factor);
  const fp32::Forward given = {call.query,
                               call.key,
                               call.value,
                               call.accumulator,
                               call.row_max,
                               call.row_sum,
                               call.out,
                               call.lse,
                               call.key_ranges,
                               q.tokens,
                               static_cast<int>(call.key.tokens),
                               static_cast<int>(q.batch),
                               static_cast<int>(q.heads),
                               static_cast<int>(q.heads / call.key.heads),
                               static_cast<int>(q.width),
                               rounded,
                               static_cast<float>(factor - rounded),
                               call.first,
                               call.last};
  const std::int64_t tiles = (q.tokens + fp32::kTile - 1) / fp32::kTile;
  fp32::for_chunks(q.width, [&]<int kChunks>() {
    launch_tickets(tiles * q.batch * q.heads, call.sm_margin, fp32::kBlocksPerSm<kChunks>, call.scratch, stream,
                   [&](unsigned blocks, auto... share) {
                     fp32::forward<kChunks><<<blocks, fp32::kThreads, 0, stream>>>(given, share...);
                   });
  });
}

}  // namespace orrery::kernels::cuda
