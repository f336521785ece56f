// What kernels know of a mask: for each query row the range of key rows that it sees. A list of key spans along which
// positions rise is one run; within it an interval of positions is an interval of rows.
#pragma once

#include <span>
#include <vector>

#include "kernels/key_range.hpp"
#include "orrery/mask.hpp"
#include "problem/row_index.hpp"

namespace orrery {

// Key rows [begin, begin + keys.rows()) of a block, along which positions rise.
struct KeyRun {
  std::int64_t begin = 0;
  RowIndex keys;
};

std::vector<KeyRun> key_runs(std::span<const Span> key_spans);

// Fills one range a query row.
void fill_key_ranges(const Mask& mask, std::span<const Span> query_spans, const KeyRun& run,
                     std::span<kernels::KeyRange> ranges);

}  // namespace orrery
