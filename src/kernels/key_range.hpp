// Which keys of a block one query row sees, as the kernels of every device take it: indices of key rows. Positions,
// spans and masks are translated to these before a kernel is called, so a kernel knows nothing of them.
#pragma once

#include <cstdint>

namespace orrery::kernels {

// [begin, end) and [sink_begin, sink_end), disjoint; either may be empty.
struct KeyRange {
  std::int32_t begin = 0, end = 0;
  std::int32_t sink_begin = 0, sink_end = 0;
};

}  // namespace orrery::kernels
