#include "io/cuda_generate.hpp"

#include <vector>

#include "device/stream.hpp"
#include "kernels/cuda/generate.hpp"
#include "orrery/device.hpp"

namespace orrery::io {

void cuda_generate(const TensorView& into, Generated tensor, Recipe recipe, PhiloxKey key, float scale,
                   std::span<const Span> positions, int device) {
  std::vector<kernels::cuda::SpanRows> spans;
  std::int64_t row = 0;
  for (const Span& span : positions) {
    if (span.count > 0) spans.push_back({span.begin, span.count, span.stride, row});
    row += span.count;
  }
  const Device where = {DeviceKind::cuda, device};
  const device::DeviceGuard guard(device);
  const std::size_t bytes = spans.size() * sizeof(spans[0]);
  const DeviceMemory memory(where, bytes, "the positions of generated rows");
  copy_bytes(memory.data(), spans.data(), bytes);
  kernels::cuda::generate({into,
                           reinterpret_cast<const kernels::cuda::SpanRows*>(memory.data()),
                           static_cast<int>(spans.size()),
                           {key[0], key[1]},
                           scale,
                           recipe == Recipe::normal        ? kernels::cuda::Fill::normal
                           : tensor == Generated::query    ? kernels::cuda::Fill::zero
                           : tensor == Generated::grad_out ? kernels::cuda::Fill::one_a_row
                                                           : kernels::cuda::Fill::signs},
                          nullptr);
  synchronize(where);
}

}  // namespace orrery::io
