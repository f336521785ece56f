#include "core/region.hpp"

namespace orrery {

Region region_of(const TensorView& tensor) {
  const auto item = static_cast<std::int64_t>(size_of(tensor.dtype));
  return {static_cast<std::byte*>(tensor.data),
          {tensor.batch, tensor.tokens, tensor.heads},
          {tensor.batch_stride * item, tensor.token_stride * item, tensor.head_stride * item},
          tensor.width * item};
}

Region simplified(const Region& region) {
  Region simple{.data = region.data, .run_bytes = region.run_bytes};
  if (region.bytes() == 0) {
    simple.run_bytes = 0;
    return simple;
  }
  int outermost = 3;  // the loops kept so far are [outermost, 3)
  for (int loop = 2; loop >= 0; --loop) {
    const std::int64_t count = region.counts[loop], stride = region.strides[loop];
    if (count == 1) continue;
    if (outermost == 3 && stride == simple.run_bytes) {
      simple.run_bytes *= count;
    } else if (outermost < 3 && stride == simple.counts[outermost] * simple.strides[outermost]) {
      simple.counts[outermost] *= count;
    } else {
      --outermost;
      simple.counts[outermost] = count;
      simple.strides[outermost] = stride;
    }
  }
  return simple;
}

}  // namespace orrery
