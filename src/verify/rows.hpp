// From positions to rows: which of a rank's rows a sampled query sees, and which of them see a sampled key, as ranges
// of row indices.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "orrery/mask.hpp"
#include "problem/row_index.hpp"

namespace orrery {

// Disjoint, none empty, none touching the next.
std::vector<Range> rows_seen(const Mask& mask, std::int64_t query_position, const RowIndex& shard);
std::vector<Range> rows_seeing(const Mask& mask, std::int64_t key_position, const RowIndex& shard);

}  // namespace orrery
