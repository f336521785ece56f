// The forward kernel. An item of work is a few panels of query rows of one unit: it walks the key tiles in order, packs
// each once, and folds it into each panel's state. Within a tile: scores = K Q^T with queries along the lanes, so that
// a row's maximum and sum are plain vector operations; the new maximum; P = exp(scores - maximum) over the scores; then
// accumulator = accumulator * exp(old maximum - new maximum) + P^T V. A row meets the tiles in the same order whatever
// panels share the item and whichever thread runs it, hence the same bits.
#include "kernels/host/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/host/attend_forward.cpp"
#include "hwy/foreach_target.h"

#include "kernels/host/attend.hpp"
#include "kernels/host/attend_call.hpp"
#include "kernels/host/mask-inl.h"
#include "kernels/host/pack-inl.h"
#include "kernels/host/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace {

struct KeyTile {
  int begin, end;            // keys of the block
  const float *key, *value;  // [kKeyTile][padded]
};

void load_panel(const AttendForward& call, const Unit& unit, std::int64_t first_row, Panel& panel) {
  const int dim = unit.head_dim, padded = padded_dim(dim);
  panel.rows = static_cast<int>(std::min<std::int64_t>(kPanel, unit.rows - first_row));
  for (int r = 0; r < panel.rows; ++r) {
    const QueryRow row = unit.row(first_row + r);
    load_row(unit.at(call.query, row), call.query.dtype, dim, panel.accumulator + r * padded, padded);
    panel.ranges->set(r, unit.range(call.key_ranges, row));
  }
  panel.ranges->repeat(panel.rows - 1);
  transpose_panel(panel.accumulator, panel.rows, padded, call.scale, panel.query);

  for (int r = 0; r < kPanel; ++r) {
    float* accumulator = panel.accumulator + r * padded;
    if (r < panel.rows) {
      const QueryRow row = unit.row(first_row + r);
      load_row(unit.at(call.accumulator, row), Dtype::fp32, dim, accumulator, padded);
      panel.row_max[r] = *unit.floats(call.row_max, row);
      panel.row_sum[r] = *unit.floats(call.row_sum, row);
    } else {
      std::fill_n(accumulator, padded, 0.0f);
      panel.row_max[r] = -kInfinity;
      panel.row_sum[r] = 0.0f;
    }
  }
}

void store_panel(const AttendForward& call, const Unit& unit, std::int64_t first_row, const Panel& panel) {
  for (int r = 0; r < panel.rows; ++r) {
    const QueryRow row = unit.row(first_row + r);
    std::memcpy(unit.floats(call.accumulator, row), panel.accumulator + r * padded_dim(unit.head_dim),
                static_cast<std::size_t>(unit.head_dim) * sizeof(float));
    *unit.floats(call.row_max, row) = panel.row_max[r];
    *unit.floats(call.row_sum, row) = panel.row_sum[r];
  }
}

// Turns scores of keys [extent) into probabilities relative to the new row maxima, in place, for one vector of rows.
// scores [kKeyTile][kPanel], offset so that row `key - tile.begin` is a key's.
template <bool kMasked>
HWY_INLINE void soften(Panel& panel, int lane, int tile_begin, Extent extent, float* scores) {
  const FloatTag df;
  const LaneRanges ranges(*panel.ranges, lane);
  const auto old_max = hn::Load(df, panel.row_max + lane);
  auto new_max = old_max, other_max = old_max;
  float* score = scores + (extent.begin - tile_begin) * kPanel + lane;
  int key = extent.begin;
  auto score_of = [&](int k, float* at) HWY_ATTR {
    auto s = hn::Load(df, at);
    if constexpr (kMasked) {
      s = hn::IfThenElse(ranges.sees(k), s, hn::Set(df, -kInfinity));
      hn::Store(s, df, at);
    }
    return s;
  };
  for (; key + 1 < extent.end; key += 2, score += 2 * kPanel) {  // two chains hide the latency of Max
    new_max = hn::Max(new_max, score_of(key, score));
    other_max = hn::Max(other_max, score_of(key + 1, score + kPanel));
  }
  if (key < extent.end) new_max = hn::Max(new_max, score_of(key, score));
  // Rounded up to an integer, so that the difference of two maxima is exact: an error in it would scale all that a row
  // has folded in so far, and show as an error that grows with the number of blocks.
  new_max = hn::Ceil(hn::Max(new_max, other_max));

  // A row that has seen nothing is measured from 0, so that -inf - -inf never arises.
  const auto origin = hn::IfThenElse(hn::Eq(new_max, hn::Set(df, -kInfinity)), hn::Zero(df), new_max);
  const auto factor = exp(hn::Sub(old_max, origin));
  auto sum = hn::Zero(df);
  score = scores + (extent.begin - tile_begin) * kPanel + lane;
  for (key = extent.begin; key < extent.end; ++key, score += kPanel) {
    const auto p = exp(hn::Sub(hn::Load(df, score), origin));
    hn::Store(p, df, score);
    sum = hn::Add(sum, p);
  }
  hn::Store(new_max, df, panel.row_max + lane);
  hn::Store(factor, df, panel.factor + lane);
  hn::Store(hn::MulAdd(hn::Load(df, panel.row_sum + lane), factor, sum), df, panel.row_sum + lane);
}

void fold_tile(Panel& panel, const KeyTile& tile, Extent extent, int dim, float* scores) {
  const int padded = padded_dim(dim);
  const int first = (extent.begin - tile.begin) / kRowAlign * kRowAlign;
  const int last = round_up(extent.end - tile.begin, kRowAlign);
  const int vectors = vectors_for(panel.rows);
  product<true, Start::kZero>({tile.key + first * padded, padded}, panel.query, kPanel, last - first, vectors, dim,
                              scores + first * kPanel, kPanel);
  for (int v = 0; v < vectors; ++v) {
    if (extent.full) {
      soften<false>(panel, v * kLanes, tile.begin, extent, scores);
    } else {
      soften<true>(panel, v * kLanes, tile.begin, extent, scores);
    }
  }
  const int skipped = extent.begin - tile.begin;
  const bool guard = !extent.full && !all_finite(tile.value, tile.end - tile.begin, padded);
  product<false, Start::kScaled>({scores + skipped * kPanel, kPanel}, tile.value + skipped * padded, padded,
                                 round_up(panel.rows, kRows), vectors_for(dim), extent.end - extent.begin,
                                 panel.accumulator, padded, guard, panel.factor);
}

}  // namespace

// Folds the whole key block into panels [first_panel, first_panel + count) of the unit.
void forward_item(const AttendForward& call, const Unit& unit, std::int64_t first_panel, int count, std::byte* base) {
  const int dim = unit.head_dim;
  ForwardScratch scratch(base, dim);
  Extent extents[kMaxPanelsPerItem];
  auto look = [&](int from, int to) {
    Extent all{to, from, true};
    for (int p = 0; p < count; ++p) {
      const Panel& panel = scratch.panels[p];
      extents[p] = visible_extent(*panel.ranges, vectors_for(panel.rows), from, to);
      if (extents[p].empty()) continue;
      all = {std::min(all.begin, extents[p].begin), std::max(all.end, extents[p].end), true};
    }
    return all;
  };

  for (int p = 0; p < count; ++p) load_panel(call, unit, (first_panel + p) * kPanel, scratch.panels[p]);
  const Extent hull = look(0, unit.key_len);
  for (int begin = hull.begin / kKeyTile * kKeyTile; begin < hull.end; begin += kKeyTile) {
    const KeyTile tile = {begin, std::min(begin + kKeyTile, unit.key_len), scratch.key, scratch.value};
    if (look(tile.begin, tile.end).empty()) continue;
    pack_keys(call.key, unit, tile.begin, tile.end, scratch.key);
    pack_keys(call.value, unit, tile.begin, tile.end, scratch.value);
    for (int p = 0; p < count; ++p) {
      if (!extents[p].empty()) fold_tile(scratch.panels[p], tile, extents[p], dim, scratch.scores);
    }
  }
  for (int p = 0; p < count; ++p) store_panel(call, unit, (first_panel + p) * kPanel, scratch.panels[p]);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(forward_item);

void attend_forward(const AttendForward& call, ThreadPool& pool, std::span<std::byte> scratch) {
  check_call(call.query, call.key, call.value);
  const std::size_t needed = attend_scratch_bytes(static_cast<int>(call.query.width), pool.threads(), false);
  ORRERY_CHECK(scratch.size() >= needed, "scratch of ", scratch.size(), " bytes, ", needed, " needed");
  const std::int64_t units = Unit::count(call.query, call.key);
  if (units == 0 || call.query.tokens == 0 || call.key.tokens == 0) return;

  // Fewer panels an item when there would be too few items to keep every thread busy.
  const std::int64_t panels = (Unit(0, call.query, call.key).rows + kPanel - 1) / kPanel;
  const std::int64_t share = units * panels / (4 * pool.threads());
  const int count =
      static_cast<int>(std::clamp<std::int64_t>(share, 1, panels_per_item(static_cast<int>(call.query.width))));
  const std::int64_t items_per_unit = (panels + count - 1) / count;
  const std::size_t thread_bytes = needed / static_cast<std::size_t>(pool.threads());
  pool.for_each(units * items_per_unit, [&](std::int64_t item, int thread) {
    // The last panels first: under a causal mask they see most keys, and the short items then fill the gaps at the end.
    const std::int64_t first_panel = (items_per_unit - 1 - item % items_per_unit) * count;
    const int panels_here = static_cast<int>(std::min<std::int64_t>(count, panels - first_panel));
    HWY_DYNAMIC_DISPATCH(forward_item)
    (call, Unit(item / items_per_unit, call.query, call.key), first_panel, panels_here,
     scratch.data() + static_cast<std::size_t>(thread) * thread_bytes);
  });
}

}  // namespace orrery::kernels
#endif
