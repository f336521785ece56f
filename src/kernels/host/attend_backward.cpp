// The backward kernel. An item of work is one block of keys of one unit, whose K, V, dK and dV stay in scratch while
// the unit's query rows stream past in strips. For a strip and a tile of the block, five products:
//   scores = K Q^T    P = exp(scores - lse)    dP = V dO^T    dS = P (dP - delta) scale
//   dV += P dO        dK += dS Q               dQ += dS^T K
// dK and dV are summed in row order by the one item that owns them. dQ is summed over a block in scratch and then added
// to the caller's, block after block in key order, which Wavefront sees to. No sum depends on the number of threads.
#include "kernels/host/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/attend_backward.cpp"
#include "hwy/foreach_target.h"

#include "kernels/host/attend.hpp"
#include "kernels/host/attend_call.hpp"
#include "kernels/host/mask-inl.h"
#include "kernels/host/pack-inl.h"
#include "kernels/host/product-inl.h"
#include "kernels/host/wavefront.hpp"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace {

struct Strip {
  std::int64_t first_row;
  int rows;
  int panel_rows(int panel) const { return std::clamp(rows - panel * kPanel, 0, kPanel); }
};

// lse, delta and key ranges of a strip. A row without a key gets an empty range, and so neither gets nor gives a
// gradient.
void load_rows(const AttendBackward& call, const Unit& unit, const Strip& strip, BackwardScratch& scratch) {
  for (int r = 0; r < kStrip; ++r) {
    PanelRanges& ranges = scratch.ranges[r / kPanel];
    if (r < strip.rows) {
      const QueryRow row = unit.row(strip.first_row + r);
      const float lse = *unit.floats(call.lse, row);
      const bool empty = lse == -kInfinity;
      ranges.set(r % kPanel, empty ? KeyRange{} : unit.range(call.key_ranges, row));
      scratch.lse[r] = empty ? 0.0f : lse;
      scratch.delta[r] = *unit.floats(call.delta, row);
    } else {
      scratch.lse[r] = scratch.delta[r] = 0.0f;
    }
  }
  for (int p = 0; strip.panel_rows(p) > 0; ++p) scratch.ranges[p].repeat(strip.panel_rows(p) - 1);
}

// Q and dO of a strip, by rows and transposed, and a zero dQ.
void pack_strip(const AttendBackward& call, const Unit& unit, const Strip& strip, BackwardScratch& scratch) {
  const int dim = unit.head_dim, padded = padded_dim(dim);
  for (int r = 0; r < strip.rows; ++r) {
    const QueryRow row = unit.row(strip.first_row + r);
    load_row(unit.at(call.query, row), call.query.dtype, dim, scratch.query + r * padded, padded);
    load_row(unit.at(call.grad_out, row), call.grad_out.dtype, dim, scratch.grad_out + r * padded, padded);
  }
  for (int p = 0; strip.panel_rows(p) > 0; ++p) {
    const int panel = p * kPanel * padded;
    transpose_panel(scratch.query + panel, strip.panel_rows(p), padded, call.scale, scratch.query_t + panel);
    transpose_panel(scratch.grad_out + panel, strip.panel_rows(p), padded, 1.0f, scratch.grad_out_t + panel);
  }
  std::fill_n(scratch.grad_query, round_up(strip.rows, kRowAlign) * padded, 0.0f);
}

// In place, for one vector of rows and keys [first, last) of the tile at `tile_begin`: p, which holds scores, becomes
// the probabilities, and ds, which holds dP, becomes the gradient of the unscaled scores. p, ds: [kKeyTile][kStrip].
template <bool kMasked>
HWY_INLINE void differentiate(const PanelRanges& panel_ranges, int lane, int tile_begin, int first, int last,
                              const float* lse_row, const float* delta_row, float scale, float* p, float* ds) {
  const FloatTag df;
  const LaneRanges ranges(panel_ranges, lane);
  const auto lse = hn::Load(df, lse_row + lane);
  const auto delta = hn::Load(df, delta_row + lane);
  for (int k = first; k < last; ++k) {
    float* p_at = p + k * kStrip + lane;
    float* ds_at = ds + k * kStrip + lane;
    auto probability = exp(hn::Sub(hn::Load(df, p_at), lse));
    auto gradient = hn::Mul(hn::Mul(probability, hn::Set(df, scale)), hn::Sub(hn::Load(df, ds_at), delta));
    if constexpr (kMasked) {
      const auto seen = ranges.sees(tile_begin + k);
      probability = hn::IfThenElseZero(seen, probability);
      gradient = hn::IfThenElseZero(seen, gradient);
    }
    hn::Store(probability, df, p_at);
    hn::Store(gradient, df, ds_at);
  }
}

// One tile's five products. `tile` is the tile's first key within the scratch block, whose first key is `block`.
void differentiate_tile(const BackwardScratch& scratch, const Strip& strip, int block, int tile, Extent extent, int dim,
                        float scale) {
  const int padded = padded_dim(dim), tile_begin = block + tile;
  const int first = (extent.begin - tile_begin) / kRowAlign * kRowAlign;
  const int last = round_up(extent.end - tile_begin, kRowAlign);
  const int keys = last - first, key_offset = (tile + first) * padded;
  const bool full = extent.full && extent.begin == tile_begin + first && extent.end == tile_begin + last;
  float* p = scratch.probabilities + first * kStrip;
  float* ds = scratch.grad_scores + first * kStrip;

  for (int panel = 0; strip.panel_rows(panel) > 0; ++panel) {
    const int vectors = vectors_for(strip.panel_rows(panel)), column = panel * kPanel;
    product<true, Start::kZero>({scratch.key + key_offset, padded}, scratch.query_t + column * padded, kPanel, keys,
                                vectors, dim, p + column, kStrip);
    product<true, Start::kZero>({scratch.value + key_offset, padded}, scratch.grad_out_t + column * padded, kPanel,
                                keys, vectors, dim, ds + column, kStrip);
    for (int v = 0; v < vectors; ++v) {
      auto run = full ? differentiate<false> : differentiate<true>;
      run(scratch.ranges[panel], v * kLanes, tile_begin + first, 0, keys, scratch.lse + column, scratch.delta + column,
          scale, p + column, ds + column);
    }
  }

  const int columns = vectors_for(dim);
  auto finite = [&](const float* rows, int count) { return full || all_finite(rows, count, padded); };
  product<true, Start::kAdd>({p, kStrip}, scratch.grad_out, padded, keys, columns, strip.rows,
                             scratch.grad_value + key_offset, padded, !finite(scratch.grad_out, strip.rows));
  product<true, Start::kAdd>({ds, kStrip}, scratch.query, padded, keys, columns, strip.rows,
                             scratch.grad_key + key_offset, padded, !finite(scratch.query, strip.rows));
  product<false, Start::kAdd>({ds, kStrip}, scratch.key + key_offset, padded, round_up(strip.rows, kRows), columns,
                              keys, scratch.grad_query, padded, !finite(scratch.key + key_offset, keys));
}

Extent strip_extent(const BackwardScratch& scratch, const Strip& strip, int from, int to) {
  Extent all{to, from, true};
  for (int p = 0; strip.panel_rows(p) > 0; ++p) {
    const Extent one = visible_extent(scratch.ranges[p], vectors_for(strip.panel_rows(p)), from, to);
    all.full = all.full && one.full && (p == 0 || (one.begin == all.begin && one.end == all.end));
    all.begin = std::min(all.begin, one.begin);
    all.end = std::max(all.end, one.end);
  }
  return all;
}

}  // namespace

// The gradients of keys [block, block_end) of the unit, which is item `item` of the wave.
void backward_item(const AttendBackward& call, const Unit& unit, int block, int block_end, std::int64_t item,
                   Wavefront& wave, std::byte* base) {
  const int dim = unit.head_dim, padded = padded_dim(dim);
  BackwardScratch scratch(base, dim);
  wave.begin(item);
  pack_keys(call.key, unit, block, block_end, scratch.key);
  pack_keys(call.value, unit, block, block_end, scratch.value);
  std::fill_n(scratch.grad_key, key_block(dim) * padded, 0.0f);
  std::fill_n(scratch.grad_value, key_block(dim) * padded, 0.0f);

  for (std::int64_t s = 0; s * kStrip < unit.rows; ++s) {
    const Strip strip = {s * kStrip, static_cast<int>(std::min<std::int64_t>(kStrip, unit.rows - s * kStrip))};
    load_rows(call, unit, strip, scratch);
    const Extent hull = strip_extent(scratch, strip, block, block_end);
    if (!hull.empty()) pack_strip(call, unit, strip, scratch);
    for (int tile = 0; !hull.empty() && tile < block_end - block; tile += kKeyTile) {
      const Extent extent = strip_extent(scratch, strip, block + tile, std::min(block + tile + kKeyTile, block_end));
      if (!extent.empty()) differentiate_tile(scratch, strip, block, tile, extent, dim, call.scale);
    }
    if (block > 0) wave.wait_until(item - 1, s + 1);
    for (int r = 0; !hull.empty() && r < strip.rows; ++r) {
      add_row(unit.floats(call.grad_query, unit.row(strip.first_row + r)), scratch.grad_query + r * padded, dim);
    }
    wave.passed(item, s + 1);
  }

  for (int key = block; key < block_end; ++key) {
    add_row(unit.floats(call.grad_key, key), scratch.grad_key + (key - block) * padded, dim);
    add_row(unit.floats(call.grad_value, key), scratch.grad_value + (key - block) * padded, dim);
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(backward_item);

std::size_t attend_scratch_bytes(int head_dim, int threads, bool backward) {
  const auto count = static_cast<std::size_t>(threads);
  if (!backward) return count * ForwardScratch(nullptr, head_dim).bytes;
  return count * BackwardScratch(nullptr, head_dim).bytes + Wavefront::bytes(threads);
}

void attend_backward(const AttendBackward& call, ThreadPool& pool, std::span<std::byte> scratch) {
  check_call(call.query, call.key, call.value);
  const int dim = static_cast<int>(call.query.width), threads = pool.threads();
  const std::size_t needed = attend_scratch_bytes(dim, threads, true);
  ORRERY_CHECK(scratch.size() >= needed, "scratch of ", scratch.size(), " bytes, ", needed, " needed");
  const std::int64_t units = Unit::count(call.query, call.key);
  if (units == 0 || call.query.tokens == 0 || call.key.tokens == 0) return;

  const int block_keys = key_block(dim), key_len = static_cast<int>(call.key.tokens);
  const std::int64_t blocks = (call.key.tokens + block_keys - 1) / block_keys;
  const std::int64_t strips = (Unit(0, call.query, call.key).rows + kStrip - 1) / kStrip;
  const std::size_t thread_bytes = BackwardScratch(nullptr, dim).bytes;
  Wavefront wave(scratch.data() + static_cast<std::size_t>(threads) * thread_bytes, threads, strips);
  pool.for_each(units * blocks, [&](std::int64_t item, int thread) {
    const int block = static_cast<int>(item % blocks) * block_keys;
    HWY_DYNAMIC_DISPATCH(backward_item)
    (call, Unit(item / blocks, call.query, call.key), block, std::min(block + block_keys, key_len), item, wave,
     scratch.data() + static_cast<std::size_t>(thread) * thread_bytes);
  });
}

}  // namespace orrery::kernels
#endif
