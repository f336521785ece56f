// Regions from tensors and bytes, and their simplest form. A region lists its bytes in one order, counts[0] outermost
// and the run innermost.
#pragma once

#include "orrery/region.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

inline Region one_run(std::byte* data, std::int64_t bytes) {
  return {.data = data, .run_bytes = bytes};
}

// The rows of a tensor, batch outermost, then tokens, then heads.
Region region_of(const TensorView& tensor);

// The same bytes in the same order with the fewest loops: loops of one are dropped and loops that continue where the
// inner one ends are merged. What remains stands at the inner end; a region of no bytes becomes one run of none.
Region simplified(const Region& region);

}  // namespace orrery
