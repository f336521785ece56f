// Two kernels, so that every gradient has one owner and one order of summation without atomics: a block of the first
// has 64 keys and goes through the queries that see them, with dK and dV in registers; a block of the second has 64
// queries of one head and goes through their keys, with dQ in registers. Both compute P and dS of a tile of queries and
// a tile of keys in the same way, which makes seven products of what could be five.
#include "device/check.hpp"
#include "kernels/cuda/common/sm_share.cuh"
#include "kernels/cuda/common/state.cuh"
#include "kernels/cuda/fp32/attend_fp32.hpp"
#include "kernels/cuda/fp32/products.cuh"

namespace orrery::kernels::cuda {
namespace fp32 {
namespace {

constexpr int kWarps = kThreads / kWarp;

struct Backward {
  Matrix query, grad_out, key, value, lse, delta, grad_query, grad_key, grad_value;
  KeyRanges key_ranges;
  std::int64_t query_len;
  int key_len, batch, heads, kv_heads, head_dim;
  float scale;
};

struct Shared {
  Tile left, right;                // both operands of a product
  float lse[kTile], delta[kTile];  // of the query rows; -inf and 0 past the last
  unsigned visits[kWarps];         // a bit for each of kThreads query tiles: it meets the keys
};

// 64 queries of one head.
struct QueryTile {
  HeadRows query, grad_out;
  std::int64_t first_row;

  __device__ QueryTile(const Backward& call, int batch, int head, std::int64_t tile)
      : query(call.query, batch, tile * kTile, head, rows(call, tile), call.head_dim),
        grad_out(call.grad_out, batch, tile * kTile, head, rows(call, tile), call.head_dim),
        first_row(tile * kTile) {}

  __device__ static int rows(const Backward& call, std::int64_t tile) {
    return static_cast<int>(min(call.query_len - tile * kTile, static_cast<std::int64_t>(kTile)));
  }
};

// 64 keys of one KV head.
struct KeyTile {
  HeadRows key, value;
  int first_key;

  __device__ KeyTile(const Backward& call, int batch, int kv_head, int tile)
      : key(call.key, batch, tile * kTile, kv_head, min(call.key_len - tile * kTile, kTile), call.head_dim),
        value(call.value, batch, tile * kTile, kv_head, min(call.key_len - tile * kTile, kTile), call.head_dim),
        first_key(tile * kTile) {}
};

__device__ bool has_gradient(float lse) {
  return lse != kMinusInfinity;  // the row sees nothing
}

// lse and delta of the rows into shared memory. Its own barrier lets the last readers finish; the next one, of whoever
// loads the first operands, lets the new ones begin.
__device__ void load_rows(Shared& shared, const Backward& call, int batch, int head, const QueryTile& queries) {
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x);
  if (row >= kTile) return;
  const bool inside = row < queries.query.rows;
  shared.lse[row] = inside ? *call.lse.at(batch, queries.first_row + row, head) : kMinusInfinity;
  shared.delta[row] = inside ? *call.delta.at(batch, queries.first_row + row, head) : 0.0f;
}

// sum = left right^T over the whole head, 64 columns at a time.
template <int kChunks>
__device__ Part multiply_rows(Shared& shared, const HeadRows& left, const HeadRows& right) {
  Part sum = {};
#pragma unroll 1
  for (int c = 0; c < kChunks; ++c) {
    __syncthreads();
    load(shared.left, left, c * kTile);
    load(shared.right, right, c * kTile);
    arrived();
    multiply_nt(sum, shared.left, shared.right);
  }
  return sum;
}

// P and dS of a tile of queries and a tile of keys, by the layout of multiply_nt.
template <int kChunks>
__device__ void grad_scores(Shared& shared, const Backward& call, const QueryTile& queries, const KeyTile& keys,
                            Part& probabilities, Part& grads) {
  probabilities = multiply_rows<kChunks>(shared, queries.query, keys.key);
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int row = thread_y() + kSpread * i;
    const float lse = shared.lse[row];
    const KeyRange range =
        has_gradient(lse) ? range_of(call.key_ranges, queries.first_row + row, call.key_len) : KeyRange{};
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      // One rounding of the exponent, however large the score.
      const float p = expf(fmaf(probabilities.at[i][j], call.scale, -lse));
      probabilities.at[i][j] = sees(range, keys.first_key + thread_x() + kSpread * j) ? p : 0.0f;
    }
  }
  grads = multiply_rows<kChunks>(shared, queries.grad_out, keys.value);
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const float delta = shared.delta[thread_y() + kSpread * i];
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      const float p = probabilities.at[i][j];
      // Where P is 0 the pair may be hidden and dP anything.
      grads.at[i][j] = p == 0.0f ? 0.0f : p * (grads.at[i][j] - delta) * call.scale;
    }
  }
}

// grad += part^T rows, part of the layout of multiply_nt. Rows without a gradient count as zeros, whatever they hold;
// in a tile that is cut, so do rows where the part is 0.
template <int kChunks>
__device__ void add_transposed(Shared& shared, Part (&grad)[kChunks], const Part& part, const HeadRows& rows,
                               bool cut) {
  __syncthreads();
  store(shared.left, part);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c > 0) __syncthreads();
    load(shared.right, rows, c * kTile, [&](int row) { return has_gradient(shared.lse[row]); });
    arrived();
    Part product = {};
    if (cut && any_nonfinite(shared.right)) {
      multiply_tn_seen(product, shared.left, shared.right);
    } else {
      multiply_tn(product, shared.left, shared.right);
    }
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
#pragma unroll
      for (int j = 0; j < kPart; ++j) grad[c].at[i][j] += product.at[i][j];
    }
  }
}

__device__ bool meets(const KeyRanges& ranges, std::int64_t query_tile, int first_key, int last_key) {
  if (ranges.rows == nullptr) return true;
  const RangeBounds bounds = ranges.tiles[query_tile];
  return max(bounds.first, first_key) < min(bounds.last, last_key) ||
         max(bounds.sink_first, first_key) < min(bounds.sink_last, last_key);
}

template <int kChunks>
__device__ void add_to(const Matrix& grad, int batch, int head, const KeyTile& keys, const Part (&sums)[kChunks]) {
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int row = kPart * thread_y() + i;
    if (row >= keys.key.rows) continue;
    float* to = grad.at(batch, keys.first_key + row, head);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < kPart; ++j) {
        const int column = c * kTile + kPart * thread_x() + j;
        if (column < keys.key.width) to[column] += sums[c].at[i][j];
      }
    }
  }
}

template <int kChunks>
__device__ __forceinline__ void grad_keys_of(const Backward& call, Shared& shared, unsigned block) {
  const int units = call.batch * call.kv_heads;
  const int unit = static_cast<int>(block % static_cast<unsigned>(units));
  const int batch = unit / call.kv_heads, kv_head = unit % call.kv_heads, group = call.heads / call.kv_heads;
  // Under a causal mask the first keys are seen by most and come first.
  const KeyTile keys(call, batch, kv_head, static_cast<int>(block / static_cast<unsigned>(units)));
  const std::int64_t query_tiles = (call.query_len + kTile - 1) / kTile;
  Part grad_key[kChunks] = {}, grad_value[kChunks] = {};

  for (std::int64_t first_tile = 0; first_tile < query_tiles; first_tile += kThreads) {
    const std::int64_t own_tile = first_tile + threadIdx.x;
    const bool met =
        own_tile < query_tiles && meets(call.key_ranges, own_tile, keys.first_key, keys.first_key + keys.key.rows);
    const unsigned ballot = __ballot_sync(~0u, met);
    __syncthreads();  // all have read the last ones
    if (threadIdx.x % kWarp == 0) shared.visits[threadIdx.x / kWarp] = ballot;
    __syncthreads();
    for (int word = 0; word < kWarps; ++word) {
      for (unsigned visits = shared.visits[word]; visits != 0; visits &= visits - 1) {
        const std::int64_t tile = first_tile + word * kWarp + __ffs(static_cast<int>(visits)) - 1;
        for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          const QueryTile queries(call, batch, head, tile);
          load_rows(shared, call, batch, head, queries);
          Part probabilities, grads;
          grad_scores<kChunks>(shared, call, queries, keys, probabilities, grads);
          const bool cut = is_cut(call.key_ranges, tile, keys.first_key, call.key_len);
          add_transposed(shared, grad_value, probabilities, queries.grad_out, cut);
          add_transposed(shared, grad_key, grads, queries.query, cut);
        }
      }
    }
  }
  add_to(call.grad_key, batch, kv_head, keys, grad_key);
  add_to(call.grad_value, batch, kv_head, keys, grad_value);
}

template <int kChunks>
__device__ __forceinline__ void grad_queries_of(const Backward& call, Shared& shared, unsigned block) {
  const auto units = static_cast<unsigned>(call.batch * call.heads);
  const int unit = static_cast<int>(block % units);
  const int batch = unit / call.heads, head = unit % call.heads, kv_head = head / (call.heads / call.kv_heads);
  const std::int64_t tiles = (call.query_len + kTile - 1) / kTile;
  const std::int64_t tile = tiles - 1 - block / units;  // under a causal mask the longest work comes first
  const KeyTiles visits(call.key_ranges, tile, call.key_len);
  if (visits.none()) return;

  const QueryTile queries(call, batch, head, tile);
  load_rows(shared, call, batch, head, queries);
  Part grad_query[kChunks] = {};
  for (int t = visits.first(); t < visits.end(); t = visits.after(t)) {
    const KeyTile keys(call, batch, kv_head, t);
    Part probabilities, grads;
    grad_scores<kChunks>(shared, call, queries, keys, probabilities, grads);
    const bool cut = is_cut(call.key_ranges, tile, keys.first_key, call.key_len);
    __syncthreads();
    store(shared.left, grads);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c > 0) __syncthreads();
      load(shared.right, keys.key, c * kTile);
      arrived();
      Part product = {};
      if (cut && any_nonfinite(shared.right)) {
        multiply_nn_seen(product, shared.left, shared.right,
                         [&](int i, int depth) { return shared.left.at[thread_y() + kSpread * i][depth] == 0.0f; });
      } else {
        multiply_nn(product, shared.left, shared.right);
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
#pragma unroll
        for (int j = 0; j < kPart; ++j) grad_query[c].at[i][j] += product.at[i][j];
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int row = thread_y() + kSpread * i;
    if (row >= queries.query.rows || !has_gradient(shared.lse[row])) continue;
    float* to = call.grad_query.at(batch, queries.first_row + row, head);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < kPart; ++j) {
        const int column = c * kTile + kPart * thread_x() + j;
        if (column < call.head_dim) to[column] += grad_query[c].at[i][j];
      }
    }
  }
}

template <int kChunks, typename... Share>
constexpr int kKeyBlocksPerSm = kChunks == 1 && sizeof...(Share) == 0 ? 2 : 1;
template <int kChunks>
constexpr int kQueryBlocksPerSm = kChunks < 4 ? 2 : 1;

// Share: SmShare, or nothing.
template <int kChunks, typename... Share>
__global__ void __launch_bounds__(kThreads, kKeyBlocksPerSm<kChunks, Share...>)
    grad_keys(Backward call, Share... share) {
  __shared__ Shared shared;
  if constexpr (sizeof...(Share) == 0) {
    grad_keys_of<kChunks>(call, shared, blockIdx.x);
  } else {
    __shared__ std::int32_t ticket;
    for_each_ticket(share..., ticket, [&] { grad_keys_of<kChunks>(call, shared, static_cast<unsigned>(ticket)); });
  }
}

template <int kChunks, typename... Share>
__global__ void __launch_bounds__(kThreads, kQueryBlocksPerSm<kChunks>) grad_queries(Backward call, Share... share) {
  __shared__ Shared shared;
  if constexpr (sizeof...(Share) == 0) {
    grad_queries_of<kChunks>(call, shared, blockIdx.x);
  } else {
    __shared__ std::int32_t ticket;
    for_each_ticket(share..., ticket, [&] { grad_queries_of<kChunks>(call, shared, static_cast<unsigned>(ticket)); });
  }
}

}  // namespace
}  // namespace fp32

void attend_backward_fp32(const AttendBackward& call, device::StreamHandle stream) {
  const TensorView &q = call.query, &k = call.key;
  const fp32::Backward given = {call.query,
                                call.grad_out,
                                call.key,
                                call.value,
                                call.lse,
                                call.delta,
                                call.grad_query,
                                call.grad_key,
                                call.grad_value,
                                call.key_ranges,
                                q.tokens,
                                static_cast<int>(k.tokens),
                                static_cast<int>(q.batch),
                                static_cast<int>(q.heads),
                                static_cast<int>(k.heads),
                                static_cast<int>(q.width),
                                call.scale};
  const auto tiles = [](std::int64_t rows) { return (rows + fp32::kTile - 1) / fp32::kTile; };
  fp32::for_chunks(q.width, [&]<int kChunks>() {
    launch_tickets(tiles(k.tokens) * k.batch * k.heads, call.sm_margin, fp32::kKeyBlocksPerSm<kChunks, SmShare>,
                   call.scratch, stream, [&](unsigned blocks, auto... share) {
                     fp32::grad_keys<kChunks><<<blocks, fp32::kThreads, 0, stream>>>(given, share...);
                   });
    launch_tickets(tiles(q.tokens) * q.batch * q.heads, call.sm_margin, fp32::kQueryBlocksPerSm<kChunks>, call.scratch,
                   stream, [&](unsigned blocks, auto... share) {
                     fp32::grad_queries<kChunks><<<blocks, fp32::kThreads, 0, stream>>>(given, share...);
                   });
  });
}

}  // namespace orrery::kernels::cuda
