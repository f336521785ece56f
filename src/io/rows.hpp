// Rows of a whole tensor that a rank holds, as runs of consecutive positions: the shape in which a file is read and
// written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "orrery/error.hpp"
#include "orrery/mask.hpp"

namespace orrery::io {

// Positions that a caller gave: within [0, seq_len), whatever numbers the spans hold. Returns how many there are.
inline std::int64_t checked_count(std::string_view where, std::span<const Span> positions, std::int64_t seq_len) {
  std::int64_t count = 0;
  for (const Span& span : positions) {
    if (span.count == 0) continue;
    const bool inside = span.begin >= 0 && span.begin < seq_len && span.count > 0 && span.stride >= 1 &&
                        span.count - 1 <= (seq_len - 1 - span.begin) / span.stride;
    if (!inside) {
      refuse(where, ": the positions {begin ", span.begin, ", count ", span.count, ", stride ", span.stride,
             "} leave the ", seq_len, " tokens of the sequence");
    }
    if (__builtin_add_overflow(count, span.count, &count)) refuse(where, ": too many positions");
  }
  return count;
}

// Calls visit(first_index, span) over the list, indices counting its tokens. Spans that continue one another, and
// strided spans of a single token, arrive joined as one span of stride 1.
template <typename Visit>
void for_each_run(std::span<const Span> positions, const Visit& visit) {
  Span run;
  std::int64_t index = 0;
  for (const Span& span : positions) {
    if (span.count == 0) continue;
    const bool dense = span.stride == 1 || span.count == 1;
    if (dense && run.count > 0 && run.stride == 1 && run.begin + run.count == span.begin) {
      run.count += span.count;
      continue;
    }
    if (run.count > 0) visit(index, run);
    index += run.count;
    run = {span.begin, span.count, dense ? 1 : span.stride};
  }
  if (run.count > 0) visit(index, run);
}

}  // namespace orrery::io
