// What the forward and backward kernels share before any vector appears: units of work and their rows, the checks on a
// call's shapes, and the scratch of one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/host/attend.hpp"
#include "kernels/host/tiles.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels {

// One query head at one token.
struct QueryRow {
  std::int64_t token, head;
};

// The query heads of one batch entry that share a KV head.
struct Unit {
  std::int64_t batch, kv_head, group, rows;
  int head_dim, key_len;

  Unit(std::int64_t index, const TensorView& query, const TensorView& key)
      : batch(index / key.heads),
        kv_head(index % key.heads),
        group(query.heads / key.heads),
        rows(query.tokens * group),
        head_dim(static_cast<int>(query.width)),
        key_len(static_cast<int>(key.tokens)) {}

  static std::int64_t count(const TensorView& query, const TensorView& key) { return query.batch * key.heads; }

  QueryRow row(std::int64_t index) const { return {index / group, kv_head * group + index % group}; }
  std::byte* at(const TensorView& tensor, QueryRow row) const { return tensor.at(batch, row.token, row.head); }
  float* floats(const TensorView& tensor, QueryRow row) const { return reinterpret_cast<float*>(at(tensor, row)); }
  float* floats(const TensorView& tensor, std::int64_t key) const {
    return reinterpret_cast<float*>(tensor.at(batch, key, kv_head));
  }

  // Bounds outside the block are cut off, so that no range can lead outside K and V.
  KeyRange range(const KeyRange* ranges, QueryRow row) const {
    if (ranges == nullptr) return {0, key_len, 0, 0};
    const KeyRange& given = ranges[row.token];
    return {std::max(given.begin, 0), std::min(given.end, key_len), std::max(given.sink_begin, 0),
            std::min(given.sink_end, key_len)};
  }
};

// The key ranges of a panel's rows, one array a bound so that rows lie along the lanes.
struct PanelRanges {
  alignas(64) std::int32_t begin[kPanel], end[kPanel], sink_begin[kPanel], sink_end[kPanel];

  void set(int row, KeyRange range) {
    begin[row] = range.begin;
    end[row] = range.end;
    sink_begin[row] = range.sink_begin;
    sink_end[row] = range.sink_end;
  }
  // Lanes past the last row repeat it, so that they never decide whether a tile is full or empty.
  void repeat(int last) {
    for (int row = last + 1; row < kPanel; ++row) set(row, {begin[last], end[last], sink_begin[last], sink_end[last]});
  }
};

// The running state of up to kPanel rows.
struct Panel {
  int rows = 0;
  float* query = nullptr;                                           // [padded][kPanel], times the scale
  float* accumulator = nullptr;                                     // [kPanel][padded]
  float *row_max = nullptr, *row_sum = nullptr, *factor = nullptr;  // [kPanel]
  PanelRanges* ranges = nullptr;
};

struct ForwardScratch {
  float *key, *value;               // [kKeyTile][padded]
  float* scores;                    // [kKeyTile][kPanel]
  Panel panels[kMaxPanelsPerItem];  // panels_per_item(head_dim) of them
  std::size_t bytes;

  ForwardScratch(std::byte* base, int head_dim) {
    Carver carver(base);
    const int padded = padded_dim(head_dim);
    key = carver.take<float>(kKeyTile * padded);
    value = carver.take<float>(kKeyTile * padded);
    scores = carver.take<float>(kKeyTile * kPanel);
    for (int p = 0; p < panels_per_item(head_dim); ++p) {
      Panel& panel = panels[p];
      panel.query = carver.take<float>(padded * kPanel);
      panel.accumulator = carver.take<float>(kPanel * padded);
      panel.row_max = carver.take<float>(kPanel);
      panel.row_sum = carver.take<float>(kPanel);
      panel.factor = carver.take<float>(kPanel);
      panel.ranges = carver.take<PanelRanges>(1);
    }
    bytes = carver.used();
  }
};

struct BackwardScratch {
  float *key, *value, *grad_key, *grad_value;  // [key_block][padded]
  float *query, *grad_out, *grad_query;        // [kStrip][padded]
  float *query_t, *grad_out_t;                 // [kStripPanels][padded][kPanel]; the query times the scale
  float *probabilities, *grad_scores;          // [kKeyTile][kStrip]
  float *lse, *delta;                          // [kStrip]
  PanelRanges* ranges;                         // [kStripPanels]
  std::size_t bytes;

  BackwardScratch(std::byte* base, int head_dim) {
    Carver carver(base);
    const int padded = padded_dim(head_dim);
    for (float** block : {&key, &value, &grad_key, &grad_value})
      *block = carver.take<float>(key_block(head_dim) * padded);
    for (float** strip : {&query, &grad_out, &grad_query, &query_t, &grad_out_t}) {
      *strip = carver.take<float>(kStrip * padded);
    }
    for (float** tile : {&probabilities, &grad_scores}) *tile = carver.take<float>(kKeyTile * kStrip);
    for (float** row : {&lse, &delta}) *row = carver.take<float>(kStrip);
    ranges = carver.take<PanelRanges>(kStripPanels);
    bytes = carver.used();
  }
};

inline void check_call(const TensorView& query, const TensorView& key, const TensorView& value) {
  ORRERY_CHECK(query.width >= 1 && query.width <= kMaxHeadDim, "head_dim is ", query.width);
  ORRERY_CHECK(key.width == query.width && value.width == query.width, "head_dims differ");
  ORRERY_CHECK(key.heads == value.heads && key.tokens == value.tokens, "key and value differ");
  ORRERY_CHECK(key.heads > 0 ? query.heads % key.heads == 0 : query.heads == 0, query.heads, " heads over ", key.heads);
  ORRERY_CHECK(query.batch == key.batch && query.batch == value.batch, "batches differ");
  ORRERY_CHECK(key.tokens < INT32_MAX - kKeyTile, "a block of ", key.tokens, " keys");
}

}  // namespace orrery::kernels
