// What the fp32 attention kernels share. Everything is cut into blocks of 64 by 64: query rows by key rows, and rows by
// columns of the head. A block of 256 threads multiplies two such blocks out of shared memory; a thread computes 4 by 4
// elements of the product. The operands pass through shared memory one pair at a time, which is little enough of it for
// several blocks to live on a multiprocessor and hide each other's loads.
//
// Thread t has tx = t % 16 and ty = t / 16, so that 16 neighbouring lanes hold a row of scores between them. Its
// elements [i][j] of a product are at
//   multiply_nt  row ty + 16 i, column tx + 16 j   scores:   left [row][depth],  right [column][depth]
//   multiply_nn  row ty + 16 i, column 4 tx + j    out, dQ:  left [row][depth],  right [depth][column]
//   multiply_tn  row 4 ty + i,  column 4 tx + j    dK, dV:   left [depth][row],  right [depth][column]
// so that every read of shared memory is of 16 bytes, and the lanes of a quarter of a warp, which are served together,
// read either one row or rows in different banks.
#pragma once

#include <cuda_pipeline_primitives.h>

#include <cstdint>

#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda::fp32 {

constexpr int kTile = 64;
constexpr int kThreads = 256;
constexpr int kPitch = kTile + 4;
constexpr int kPart = 4;                // elements of a thread along either side
constexpr int kSpread = kTile / kPart;  // threads along either side

static_assert(kTile == kRangeTile, "a tile of query rows has bounds of its own");
static_assert(kSpread * kSpread == kThreads, "threads and elements cover a tile");
static_assert(kPitch % 4 == 0 && kPitch % 32 == 4, "rows begin at 16 bytes, and eight of them lie in different banks");

struct alignas(16) Tile {
  float at[kTile][kPitch];
};

// A thread's elements of a tile.
struct Part {
  float at[kPart][kPart];
};

__device__ inline int thread_x() {
  return static_cast<int>(threadIdx.x) % kSpread;
}
__device__ inline int thread_y() {
  return static_cast<int>(threadIdx.x) / kSpread;
}

// A tensor as kernels take it.
struct Matrix {
  float* data = nullptr;  // [batch, tokens, heads, width]
  std::int64_t batch_stride = 0, token_stride = 0, head_stride = 0;

  Matrix(const TensorView& tensor)
      : data(static_cast<float*>(tensor.data)),
        batch_stride(tensor.batch_stride),
        token_stride(tensor.token_stride),
        head_stride(tensor.head_stride) {}

  __device__ float* at(std::int64_t batch, std::int64_t token, std::int64_t head) const {
    return data + batch * batch_stride + token * token_stride + head * head_stride;
  }
};

// Rows of one head, from some token on.
struct HeadRows {
  const float* data;  // [rows, width]
  std::int64_t stride;
  int rows, width;

  __device__ HeadRows(const Matrix& tensor, std::int64_t batch, std::int64_t token, std::int64_t head, int row_count,
                      int head_dim)
      : data(tensor.at(batch, token, head)), stride(tensor.token_stride), rows(row_count), width(head_dim) {}
};

// Begins to load columns [column, column + kTile) of the rows for which keep(row); zeros for the others and beyond the
// edges. arrived() ends it.
template <typename Keep>
__device__ void load(Tile& tile, const HeadRows& from, int column, const Keep& keep) {
  constexpr int kRowsAtOnce = kThreads / kTile;
  const int x = static_cast<int>(threadIdx.x) % kTile;
  const bool inside = column + x < from.width;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) / kTile; row < kTile; row += kRowsAtOnce) {
    const bool wanted = inside && row < from.rows && keep(row);
    const float* at = wanted ? from.data + row * from.stride + column + x : from.data;
    __pipeline_memcpy_async(&tile.at[row][x], at, sizeof(float), wanted ? 0 : sizeof(float));
  }
}

__device__ inline void load(Tile& tile, const HeadRows& from, int column) {
  load(tile, from, column, [](int) { return true; });
}

// All threads' loads are in shared memory, and all that they have stored there.
__device__ inline void arrived() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

__device__ inline float4 quad(const Tile& tile, int row, int column) {
  return *reinterpret_cast<const float4*>(&tile.at[row][column]);
}

// sum += x y^T, of four numbers each.
__device__ inline void add_outer(Part& sum, const float4& x, const float4& y) {
  const float xs[kPart] = {x.x, x.y, x.z, x.w}, ys[kPart] = {y.x, y.y, y.z, y.w};
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
#pragma unroll
    for (int j = 0; j < kPart; ++j) sum.at[i][j] = fmaf(xs[i], ys[j], sum.at[i][j]);
  }
}

// The products are not unrolled further: one step of four depths is 64 multiply-adds, and more operands at once would
// take the registers that let two blocks share a multiprocessor.
__device__ inline void multiply_nt(Part& sum, const Tile& left, const Tile& right) {
#pragma unroll 1
  for (int depth = 0; depth < kTile; depth += 4) {
    float4 x[kPart], y[kPart];
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      x[i] = quad(left, thread_y() + kSpread * i, depth);
      y[i] = quad(right, thread_x() + kSpread * i, depth);
    }
    add_outer(sum, {x[0].x, x[1].x, x[2].x, x[3].x}, {y[0].x, y[1].x, y[2].x, y[3].x});
    add_outer(sum, {x[0].y, x[1].y, x[2].y, x[3].y}, {y[0].y, y[1].y, y[2].y, y[3].y});
    add_outer(sum, {x[0].z, x[1].z, x[2].z, x[3].z}, {y[0].z, y[1].z, y[2].z, y[3].z});
    add_outer(sum, {x[0].w, x[1].w, x[2].w, x[3].w}, {y[0].w, y[1].w, y[2].w, y[3].w});
  }
}

__device__ inline void multiply_nn(Part& sum, const Tile& left, const Tile& right) {
#pragma unroll 1
  for (int depth = 0; depth < kTile; depth += 4) {
    float4 x[kPart];
#pragma unroll
    for (int i = 0; i < kPart; ++i) x[i] = quad(left, thread_y() + kSpread * i, depth);
    add_outer(sum, {x[0].x, x[1].x, x[2].x, x[3].x}, quad(right, depth, kPart * thread_x()));
    add_outer(sum, {x[0].y, x[1].y, x[2].y, x[3].y}, quad(right, depth + 1, kPart * thread_x()));
    add_outer(sum, {x[0].z, x[1].z, x[2].z, x[3].z}, quad(right, depth + 2, kPart * thread_x()));
    add_outer(sum, {x[0].w, x[1].w, x[2].w, x[3].w}, quad(right, depth + 3, kPart * thread_x()));
  }
}

__device__ inline void multiply_tn(Part& sum, const Tile& left, const Tile& right) {
#pragma unroll 4
  for (int depth = 0; depth < kTile; ++depth) {
    add_outer(sum, quad(left, depth, kPart * thread_y()), quad(right, depth, kPart * thread_x()));
  }
}

// Where the right operand holds what is not finite, the two products above for tiles that a mask cuts: rows of it are
// left out for which the left one's element, a hidden probability or what follows from it, is 0 (hidden(row, column) of
// the left operand), for 0 times NaN is NaN.
template <typename Hidden>
__device__ inline void multiply_nn_seen(Part& sum, const Tile& left, const Tile& right, const Hidden& hidden) {
#pragma unroll 1
  for (int depth = 0; depth < kTile; ++depth) {
    const float4 y = quad(right, depth, kPart * thread_x());
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      if (hidden(i, depth)) continue;
      const float x = left.at[thread_y() + kSpread * i][depth];
      const float ys[kPart] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int j = 0; j < kPart; ++j) sum.at[i][j] = fmaf(x, ys[j], sum.at[i][j]);
    }
  }
}
__device__ inline void multiply_tn_seen(Part& sum, const Tile& left, const Tile& right) {
#pragma unroll 1
  for (int depth = 0; depth < kTile; ++depth) {
    const float4 y = quad(right, depth, kPart * thread_x());
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const float x = left.at[depth][kPart * thread_y() + i];
      if (x == 0.0f) continue;
      const float ys[kPart] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int j = 0; j < kPart; ++j) sum.at[i][j] = fmaf(x, ys[j], sum.at[i][j]);
    }
  }
}

// Whether an operand that has arrived holds what is not finite. By all threads.
__device__ inline bool any_nonfinite(const Tile& tile) {
  bool any = false;
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const float4 four = quad(tile, thread_y() + kSpread * i, kPart * thread_x());
    any |=
        !(fabsf(four.x) < INFINITY && fabsf(four.y) < INFINITY && fabsf(four.z) < INFINITY && fabsf(four.w) < INFINITY);
  }
  return __syncthreads_or(any);
}

// Whether some query of a tile does not see some key of a tile, of those that there are.
__device__ inline bool is_cut(const KeyRanges& ranges, std::int64_t query_tile, int first_key, int key_len) {
  if (ranges.rows == nullptr) return false;
  const RangeBounds bounds = ranges.tiles[query_tile];
  return first_key < bounds.full_begin || bounds.full_end < min(first_key + kTile, key_len);
}

// A product of scores, by the layout of multiply_nt, becomes an operand.
__device__ inline void store(Tile& tile, const Part& part) {
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
#pragma unroll
    for (int j = 0; j < kPart; ++j) tile.at[thread_y() + kSpread * i][thread_x() + kSpread * j] = part.at[i][j];
  }
}

// What a row sees, keys outside the block cut off. Without ranges every query sees every key.
__device__ inline KeyRange range_of(const KeyRanges& ranges, std::int64_t row, int key_len) {
  if (ranges.rows == nullptr) return {0, key_len, 0, 0};
  const KeyRange range = ranges.rows[row];
  return {max(range.begin, 0), min(range.end, key_len), max(range.sink_begin, 0), min(range.sink_end, key_len)};
}

__device__ inline bool sees(const KeyRange& range, int key) {
  return (range.begin <= key && key < range.end) || (range.sink_begin <= key && key < range.sink_end);
}

// The tiles of keys that a tile of query rows meets, in order and each once: those of two intervals.
class KeyTiles {
 public:
  __device__ KeyTiles(const KeyRanges& ranges, std::int64_t query_tile, int key_len) {
    if (ranges.rows == nullptr) {
      early_ = cut(0, key_len);
    } else {
      const RangeBounds bounds = ranges.tiles[query_tile];
      const Interval keys = cut(bounds.first, min(bounds.last, key_len));
      const Interval sinks = cut(bounds.sink_first, min(bounds.sink_last, key_len));
      early_ = keys.begin <= sinks.begin ? keys : sinks;
      late_ = keys.begin <= sinks.begin ? sinks : keys;
    }
    late_.begin = max(late_.begin, early_.end);  // which may leave nothing
  }

  __device__ bool none() const { return first() >= end(); }
  __device__ int first() const { return early_.begin < early_.end ? early_.begin : late_.begin; }
  __device__ int after(int tile) const { return tile + 1 == early_.end ? late_.begin : tile + 1; }
  __device__ int end() const { return late_.begin < late_.end ? late_.end : early_.end; }

 private:
  struct Interval {
    int begin = 0, end = 0;
  };

  __device__ static Interval cut(int first, int last) {
    if (first >= last) return {0, 0};
    return {max(first, 0) / kTile, (last + kTile - 1) / kTile};
  }

  Interval early_, late_;
};

// One of kChunks for head_dim up to kChunks * kTile.
template <typename Launch>
void for_chunks(std::int64_t head_dim, const Launch& launch) {
  if (head_dim <= kTile) {
    launch.template operator()<1>();
  } else if (head_dim <= 2 * kTile) {
    launch.template operator()<2>();
  } else {
    launch.template operator()<4>();
  }
}

}  // namespace orrery::kernels::cuda::fp32
