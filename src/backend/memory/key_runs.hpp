// From positions to rows: kernels take, for each query row, the range of key rows it sees. A list of key spans along
// which positions rise is one run; within it an interval of positions is an interval of rows.
#pragma once

#include <span>
#include <vector>

#include "kernels/key_range.hpp"
#include "orrery/mask.hpp"

namespace orrery {

// Key rows [begin, begin + tokens) of a block, along which positions rise.
struct KeyRun {
  std::int64_t begin = 0, tokens = 0;
  std::vector<Span> spans;
  std::vector<std::int64_t> row_of_span;  // of each span's first key, within the run

  // The number of the run's keys before a position.
  std::int64_t keys_before(std::int64_t position) const;
};

std::vector<KeyRun> key_runs(std::span<const Span> key_spans);

// Fills one range a query row.
void fill_key_ranges(const Mask& mask, std::span<const Span> query_spans, const KeyRun& keys,
                     std::span<kernels::KeyRange> ranges);

}  // namespace orrery
