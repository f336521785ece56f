#include <algorithm>

#include "core/region.hpp"
#include "device/check.hpp"
#include "kernels/cuda/common/runs.cuh"
#include "kernels/cuda/copy_region.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnitsPerThread = 4;  // loads in flight before the first store waits for one

template <typename Unit>
__global__ void __launch_bounds__(kThreads) copy_units(Walk into, Walk from, std::int64_t units) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kThreads * kUnitsPerThread) + threadIdx.x;
  Unit held[kUnitsPerThread];
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    const std::int64_t unit = first + i * kThreads;
    if (unit < units) held[i] = *from.at<const Unit>(unit);
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    const std::int64_t unit = first + i * kThreads;
    if (unit < units) *into.at<Unit>(unit) = held[i];
  }
}

template <typename Unit>
void launch(const Region& into, const Region& from, device::StreamHandle stream) {
  constexpr int kUnitBytes = sizeof(Unit), kUnitsPerBlock = kThreads * kUnitsPerThread;
  const std::int64_t units = into.bytes() / kUnitBytes;
  const auto blocks = static_cast<unsigned>((units + kUnitsPerBlock - 1) / kUnitsPerBlock);
  copy_units<Unit><<<blocks, kThreads, 0, stream>>>(Walk(into, kUnitBytes), Walk(from, kUnitBytes), units);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void copy_region(const Region& into, const Region& from, device::StreamHandle stream) {
  ORRERY_CHECK(into.bytes() == from.bytes(), into.bytes(), " bytes from ", from.bytes());
  if (into.bytes() == 0) return;
  const Region to = simplified(into), of = simplified(from);
  if (to.contiguous() && of.contiguous()) {
    ORRERY_CUDA_CHECK(
        cudaMemcpyAsync(to.data, of.data, static_cast<std::size_t>(to.run_bytes), cudaMemcpyDeviceToDevice, stream));
    return;
  }
  switch (std::min(widest_unit(to), widest_unit(of))) {
    case 16:
      return launch<uint4>(to, of, stream);
    case 8:
      return launch<uint2>(to, of, stream);
    case 4:
      return launch<std::uint32_t>(to, of, stream);
    case 2:
      return launch<std::uint16_t>(to, of, stream);
    default:
      return launch<std::uint8_t>(to, of, stream);
  }
}

}  // namespace orrery::kernels::cuda
