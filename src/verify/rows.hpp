// From positions to rows: which of a rank's rows a sampled query sees, and which of them see a sampled key, as ranges
// of row indices. Positions rise along a shard, so what is an interval of positions is one range of rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "orrery/mask.hpp"

namespace orrery {

// Disjoint, none empty, none touching the next. `spans` are a rank's, as Layout::shard gives them.
std::vector<Range> rows_seen(const Mask& mask, std::int64_t query_position, std::span<const Span> spans);
std::vector<Range> rows_seeing(const Mask& mask, std::int64_t key_position, std::span<const Span> spans);

}  // namespace orrery
