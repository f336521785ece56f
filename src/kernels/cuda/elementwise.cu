// Kernels that treat all elements alike (clear, add, copy): a thread walks a few units of memory, wherever they lie.
// All are bound by memory; four floats, 16 bytes, are one access where pointers and strides allow.
#include <algorithm>

#include "core/region.hpp"
#include "device/check.hpp"
#include "kernels/cuda/common/elements.cuh"
#include "kernels/cuda/common/runs.cuh"
#include "kernels/cuda/copy_region.hpp"
#include "kernels/cuda/shapes.hpp"
#include "kernels/rowwise.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnitsPerThread = 4;  // enough work a block that starting blocks is no limit
constexpr int kTogether = 4;        // elements of one access

// body(unit) for the thread's share of [0, units).
template <typename Body>
__device__ void for_each_unit(std::int64_t units, const Body& body) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kThreads * kUnitsPerThread) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    const std::int64_t unit = first + i * kThreads;
    if (unit < units) body(unit);
  }
}

unsigned blocks_for(std::int64_t units) {
  constexpr int kUnitsPerBlock = kThreads * kUnitsPerThread;
  return static_cast<unsigned>((units + kUnitsPerBlock - 1) / kUnitsPerBlock);
}

// A tensor and the four bytes that it is filled with; of 16-bit tensors the word is two elements.
struct Fill {
  Walk walk;
  std::int64_t units = 0;
  std::uint32_t word = 0;

  Fill() = default;
  Fill(const TensorView& into, std::uint32_t fill_word) : word(fill_word) {
    if (into.elements() == 0) return;
    const Region runs = simplified(region_of(into));
    const int unit_bytes = widest_unit(runs);
    walk = Walk(runs, unit_bytes);
    units = runs.bytes() / unit_bytes;
  }
};

struct Fills {
  Fill first, second, third;
  std::int64_t units() const { return first.units + second.units + third.units; }
};

__device__ void fill_unit(const Fill& fill, std::int64_t unit) {
  const std::uint32_t word = fill.word;
  switch (fill.walk.unit_bytes()) {
    case 16:
      *fill.walk.at<uint4>(unit) = {word, word, word, word};
      break;
    case 8:
      *fill.walk.at<uint2>(unit) = {word, word};
      break;
    case 4:
      *fill.walk.at<std::uint32_t>(unit) = word;
      break;
    default:
      *fill.walk.at<std::uint16_t>(unit) = static_cast<std::uint16_t>(word);
  }
}

__global__ void __launch_bounds__(kThreads) fill_units(Fills fills, std::int64_t units) {
  for_each_unit(units, [&](std::int64_t unit) {
    if (unit < fills.first.units) return fill_unit(fills.first, unit);
    unit -= fills.first.units;
    if (unit < fills.second.units) return fill_unit(fills.second, unit);
    fill_unit(fills.third, unit - fills.second.units);
  });
}

void launch_fill(const Fills& fills, device::StreamHandle stream) {
  if (fills.units() == 0) return;
  fill_units<<<blocks_for(fills.units()), kThreads, 0, stream>>>(fills, fills.units());
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

// store(unit, load(unit)) for the thread's share of [0, units): all loads before the first store, which the compiler
// cannot know to be of other memory.
template <typename Load, typename Store>
__device__ void load_then_store(std::int64_t units, const Load& load, const Store& store) {
  decltype(load(units)) held[kUnitsPerThread];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * (kThreads * kUnitsPerThread) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    if (first + i * kThreads < units) held[i] = load(first + i * kThreads);
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerThread; ++i) {
    if (first + i * kThreads < units) store(first + i * kThreads, held[i]);
  }
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) add_units(Walk into, Walk from, std::int64_t units) {
  load_then_store(
      units,
      [&](std::int64_t unit) {
        auto sum = *into.at<const Pack<float, kCount>>(unit);
        const auto term = *from.at<const Pack<float, kCount>>(unit);
#pragma unroll
        for (int i = 0; i < kCount; ++i) sum.at[i] += term.at[i];
        return sum;
      },
      [&](std::int64_t unit, const Pack<float, kCount>& sum) { *into.at<Pack<float, kCount>>(unit) = sum; });
}

template <int kCount>
__global__ void __launch_bounds__(kThreads)
    convert_units(Walk into, Dtype into_dtype, Walk from, Dtype from_dtype, std::int64_t units) {
  load_then_store(
      units, [&](std::int64_t unit) { return load_elements<kCount>(from.at<const std::byte>(unit), from_dtype); },
      [&](std::int64_t unit, const Pack<float, kCount>& values) {
        store_elements(into.at<std::byte>(unit), into_dtype, values);
      });
}

// Whether `count` elements of the runs can be taken together, in accesses of up to 16 bytes.
bool together(const Region& runs, std::size_t element_bytes, int count) {
  const int bytes = count * static_cast<int>(element_bytes);
  return widest_unit(runs) >= std::min(bytes, 16) && runs.run_bytes % bytes == 0;
}

}  // namespace

void clear(const TensorView& into, device::StreamHandle stream) {
  launch_fill({Fill(into, 0), {}, {}}, stream);
}

void clear_state(const State& into, device::StreamHandle stream) {
  constexpr std::uint32_t kMinusInfinity = 0xff800000u;
  check_state(into);
  launch_fill({Fill(into.accumulator, 0), Fill(into.row_max, kMinusInfinity), Fill(into.row_sum, 0)}, stream);
}

void clear_scan(const ScanState& into, device::StreamHandle stream) {
  constexpr std::uint32_t kOne = 0x3f800000u;
  check_fp32({into.matrix, into.decay});
  launch_fill({Fill(into.matrix, 0), Fill(into.decay, kOne), {}}, stream);
}

void add(const TensorView& into, const TensorView& from, device::StreamHandle stream) {
  check_same_shape(into, from);
  check_fp32({into, from});
  if (into.elements() == 0) return;
  const Region to = simplified(region_of(into)), of = simplified(region_of(from));
  const int count = together(to, sizeof(float), kTogether) && together(of, sizeof(float), kTogether) ? kTogether : 1;
  const int unit_bytes = count * static_cast<int>(sizeof(float));
  const auto kernel = count == kTogether ? add_units<kTogether> : add_units<1>;
  const std::int64_t units = into.elements() / count;
  kernel<<<blocks_for(units), kThreads, 0, stream>>>(Walk(to, unit_bytes), Walk(of, unit_bytes), units);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

void copy(const TensorView& into, const TensorView& from, device::StreamHandle stream) {
  check_same_shape(into, from);
  if (into.dtype == from.dtype) return copy_region(region_of(into), region_of(from), stream);
  if (into.elements() == 0) return;
  const Region to = simplified(region_of(into)), of = simplified(region_of(from));
  const std::size_t to_bytes = size_of(into.dtype), of_bytes = size_of(from.dtype);
  constexpr int kWide = 2 * kTogether;  // 16 bytes of 16-bit elements
  const auto allowed = [&](int count) { return together(to, to_bytes, count) && together(of, of_bytes, count); };
  const int count = allowed(kWide) ? kWide : allowed(kTogether) ? kTogether : 1;
  const auto kernel = count == kWide       ? convert_units<kWide>
                      : count == kTogether ? convert_units<kTogether>
                                           : convert_units<1>;
  const std::int64_t units = into.elements() / count;
  kernel<<<blocks_for(units), kThreads, 0, stream>>>(Walk(to, count * static_cast<int>(to_bytes)), into.dtype,
                                                     Walk(of, count * static_cast<int>(of_bytes)), from.dtype, units);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
