// The sizes into which the kernels cut their work, and how they lay out the scratch that they are handed.
//
// The query heads that share one KV head are one `unit`: its rows are (query, head) pairs, row = query * group + head.
// So a packed key tile serves the whole group, and a single query of grouped heads still fills the vectors. Rows are
// taken in panels, keys in tiles; scores are computed for one panel and one tile at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/alignment.hpp"

namespace orrery::kernels {

inline constexpr int kMaxHeadDim = 256;

// Query rows lie along the vector lanes. 48 is three AVX-512 vectors: with 8 keys it makes 24 accumulators, three loads
// and one broadcast, which fills 32 registers; it is six vectors of AVX2 and twelve of SSE or NEON.
inline constexpr int kPanel = 48;

// Keys folded at once. The scores of a panel and a tile are 12 KiB, which leaves room for operands in a 32 KiB L1, and
// the accumulator is read and written once per 64 multiply-adds.
inline constexpr int kKeyTile = 64;

// Forward: panels that share one packing of a key tile. Reading K and V from beyond the L2 cache is what packing costs,
// so there are as many as keep queries and accumulators, two floats an element, within 384 KiB of it.
inline constexpr int kMaxPanelsPerItem = 16;
inline constexpr int kPanelFloats = 1024 * kPanel;

// Backward: two panels make a strip, so that the sums over query rows (dK and dV) are 96 long.
inline constexpr int kStripPanels = 2;
inline constexpr int kStrip = kStripPanels * kPanel;

// Backward: keys whose K, V, dK and dV stay in the L2 cache while all query rows stream past; a strip is packed once
// for each such block. Four arrays of 64 KiB leave three quarters of a 1 MiB L2 for the strip.
inline constexpr int kKeyBlockFloats = 16384;

// Columns of packed rows are padded with zeros to whole vectors of the widest target.
inline constexpr int kMaxLanes = 16;

// Tiles hold whole groups of this many rows, the widest register blocking; rows past the last are computed and ignored.
inline constexpr int kRowAlign = 8;

constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
constexpr int padded_dim(int head_dim) {
  return round_up(head_dim, kMaxLanes);
}
constexpr int panels_per_item(int head_dim) {
  return std::min(kMaxPanelsPerItem, kPanelFloats / (kPanel * padded_dim(head_dim)));
}
constexpr int key_block(int head_dim) {
  return std::max(kKeyTile, kKeyBlockFloats / padded_dim(head_dim) / kKeyTile * kKeyTile);
}

// Hands out aligned pieces of a buffer; with no buffer it only counts the bytes.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  T* take(int count) {
    const std::size_t at = used_;
    used_ += aligned(static_cast<std::size_t>(count) * sizeof(T), kHostAlignment);
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace orrery::kernels
