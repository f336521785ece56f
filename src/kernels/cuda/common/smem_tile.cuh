// A tile of 16-bit elements in shared memory, stored row by row in chunks of 16 bytes. Within a span of 8 chunks (4
// when a row is not a whole number of these) the chunks of a row are permuted by XOR with the row's number. One phase
// of ldmatrix reads the same column of 8 rows, and these 8 chunks lie in different banks. So do the 8 chunks, side by
// side in a row, that one phase of a copy writes.
//
// A lane that reads fragments keeps one address, its start: where its row and its half of 16 columns lie for the
// fragment at row 0, column 0. The fragment at any other row (a multiple of 8) and column (a multiple of 16) is `at`
// constants from there: since the swizzle only looks at the row modulo 8, columns are XORed into the low bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda {

template <typename Element_, int kRows_, int kColumns_>
struct alignas(128) SmemTile {
  using Element = Element_;
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kChunkElements = 8;
  static constexpr int kRowBytes = kColumns * 2;
  static constexpr int kSpanChunks = kColumns % 64 == 0 ? 8 : 4;
  static constexpr int kSpanBytes = kSpanChunks * 16;
  static_assert(kIs16Bit<Element>, "chunks hold eight elements");
  static_assert(kColumns % 32 == 0, "a row is a whole number of spans");
  static_assert(kRows % 8 == 0, "ldmatrix reads rows by eight");

  uint4 chunks[kRows * kColumns / kChunkElements];

  // Two rows of a 4-chunk span fill the banks once, hence the row's number is taken by pairs.
  static __device__ __forceinline__ int swizzle(int row) { return kSpanChunks == 8 ? row & 7 : (row >> 1) & 3; }
  static __device__ __forceinline__ int index(int row, int chunk) {
    return row * (kColumns / kChunkElements) + (chunk ^ swizzle(row));
  }

  __device__ __forceinline__ uint4& chunk(int row, int column_chunk) { return chunks[index(row, column_chunk)]; }
  // Columns `column` and `column` + 1 (column even) of a row, packed. Free of conflicts when a warp writes fragments.
  __device__ __forceinline__ std::uint32_t& pair(int row, int column) {
    auto* words = reinterpret_cast<std::uint32_t*>(&chunk(row, column / kChunkElements));
    return words[column % kChunkElements / 2];
  }

  // Writes a packed fragment, m16 x n16 as a0..a3 of ptx.cuh, to rows and columns from there; row a multiple of 8,
  // column of 16. Free of conflicts.
  __device__ __forceinline__ void store(const std::uint32_t (&fragment)[4], int lane, int row, int column) {
#if __CUDA_ARCH__ >= 900
    stmatrix(fragment, at(start_a(lane), row, column));
#else
    const std::uint32_t first = at(start(lane / 4, 0) + static_cast<std::uint32_t>(lane % 4 * 4), row, column);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_shared((first ^ static_cast<std::uint32_t>(i / 2 * 16)) + i % 2 * 8 * kRowBytes, fragment[i]);
    }
#endif
  }

  // The start of A[m][k] with m along rows, read by ldmatrix: m16 x k16 as a0..a3. And of B[k][n] with k along rows,
  // read by ldmatrix_trans: k16 x n16 as b0, b1 of columns n 0..7, then b0, b1 of n 8..15.
  __device__ __forceinline__ std::uint32_t start_a(int lane) const {
    return start(lane & 15, lane >> 4);
  }
  __device__ __forceinline__ std::uint32_t start_b_trans(int lane) const {
    return start_a(lane);
  }

  // The start of B[k][n] with n along rows, read by ldmatrix: n16 x k16 as b0, b1 of n 0..7, then b0, b1 of n 8..15.
  // And of A[m][k] with k along rows, read by ldmatrix_trans: k16 x m16 as a0..a3.
  __device__ __forceinline__ std::uint32_t start_b(int lane) const {
    return start((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  }
  __device__ __forceinline__ std::uint32_t start_a_trans(int lane) const {
    return start_b(lane);
  }

  // row a multiple of 8, column of 16; meant to be constants after unrolling.
  static __device__ __forceinline__ std::uint32_t at(std::uint32_t start, int row, int column) {
    const int bytes = column * 2;
    return (start ^ static_cast<std::uint32_t>(bytes % kSpanBytes)) +
           static_cast<std::uint32_t>(row * kRowBytes + bytes / kSpanBytes * kSpanBytes);
  }

 private:
  __device__ __forceinline__ std::uint32_t start(int row, int half) const {
    return shared_address(chunks) + static_cast<std::uint32_t>(index(row, half) * 16);
  }
};

// Copies rows of a matrix in global memory into tiles; one of these for each thread of the kThreads that load together.
// A group of 8 (4) lanes moves one span of one row, and a thread always the same chunk of its spans.
template <typename Tile, int kThreads>
class TileLoader {
  using Element = typename Tile::Element;
  static constexpr int kSpanElements = Tile::kSpanChunks * Tile::kChunkElements;
  static constexpr int kRowsPerPass = kThreads / Tile::kSpanChunks;
  static_assert(kThreads % (8 * Tile::kSpanChunks) == 0, "all passes of a thread then share one swizzle");
  static_assert(Tile::kRows % kRowsPerPass == 0 || Tile::kRows < kRowsPerPass, "passes are whole, or there is one");

 public:
  // matrix [rows][width], rows `stride` elements apart; pointer and stride are multiples of 16 bytes, width of 8.
  __device__ __forceinline__ TileLoader(const Element* matrix, std::int64_t stride, int width, int thread)
      : row_(thread / Tile::kSpanChunks),
        column_(thread % Tile::kSpanChunks * Tile::kChunkElements),
        width_(width),
        stride_(stride),
        source_(matrix + row_ * stride + column_) {}

  // Starts the copies of rows [first_row, first_row + kRows); rows from row_end on and columns from width on become 0.
  // Does not commit.
  __device__ __forceinline__ void load(Tile& tile, int first_row, int row_end) const {
    const std::uint32_t into =
        shared_address(tile.chunks) +
        static_cast<std::uint32_t>(Tile::index(row_, column_ / Tile::kChunkElements) * static_cast<int>(sizeof(uint4)));
    const Element* from = source_ + first_row * stride_;
    if (Tile::kRows < kRowsPerPass && row_ >= Tile::kRows) return;
#pragma unroll
    for (int pass = 0; pass < Tile::kRows; pass += kRowsPerPass) {
      const bool row_read = first_row + row_ + pass < row_end;
#pragma unroll
      for (int span = 0; span < Tile::kColumns; span += kSpanElements) {
        cp_async(into + static_cast<std::uint32_t>(pass * Tile::kRowBytes + span * 2), from + span,
                 row_read && column_ + span < width_);
      }
      from += kRowsPerPass * stride_;
    }
  }

 private:
  int row_, column_, width_;
  std::int64_t stride_;
  const Element* source_;
};

}  // namespace orrery::kernels::cuda
