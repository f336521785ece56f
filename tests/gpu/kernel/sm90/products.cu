// Every form of a product of a warpgroup that the kernels may use.
#include <bit>
#include <utility>

#include "gpu/kernel/sm90/probe.cuh"
#include "gpu/kernel/sm90/probes.hpp"
#include "orrery/error.hpp"

namespace orrery::test::sm90 {
namespace {

constexpr int kSteps = kDepth / 16, kPanelSteps = kPanelColumns / 16;

// Where step `step` of a matrix of `rows` rows (of the image) lies.
template <Depth kDepthRuns>
__device__ __forceinline__ MatrixDescriptor matrix_at(std::uint32_t image, int rows, int step) {
  const int panel_bytes = rows * kPanelRowBytes;
  if constexpr (kDepthRuns == Depth::along_rows) {
    return depth_along_rows(image).plus(step / kPanelSteps * panel_bytes + step % kPanelSteps * 32);
  } else {
    return depth_across_rows(image, panel_bytes).plus(step * 16 * kPanelRowBytes);
  }
}

template <typename Element, int N, bool kARegisters, Depth kA, Depth kB>
__global__ void __launch_bounds__(kWarpgroup, 1)
    product_kernel(Watch watch, const std::uint32_t* a, int a_words, const std::uint32_t* b, int b_words, float* d,
                   bool add) {
  if (watch.only_watches()) return;
  extern __shared__ __align__(1024) std::uint32_t images[];
  std::uint32_t* const a_image = images + b_words;  // a whole number of 1024 bytes further
  for (int i = thread_index(); i < b_words; i += kWarpgroup) images[i] = b[i];
  if constexpr (!kARegisters) {
    for (int i = thread_index(); i < a_words; i += kWarpgroup) a_image[i] = a[i];
  }
  fence_async_proxy();
  __syncthreads();

  float sums[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sums[i] = d[thread_index() * (N / 2) + i];
  std::uint32_t fragments[kARegisters ? 4 * kSteps : 1];
  if constexpr (kARegisters) {
#pragma unroll
    for (int i = 0; i < 4 * kSteps; ++i) fragments[i] = a[thread_index() * 4 * kSteps + i];
  }
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const MatrixDescriptor b_step = matrix_at<kB>(shared_address(images), kB == Depth::along_rows ? N : kDepth, step);
    if constexpr (kARegisters) {
      Wgmma<Element, N>::template registers<kB>(sums, fragments + 4 * step, b_step, step > 0 || add);
    } else {
      Wgmma<Element, N>::template shared<kA, kB>(
          sums, matrix_at<kA>(shared_address(a_image), kA == Depth::along_rows ? kProductRows : kDepth, step), b_step,
          step > 0 || add);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  keep(fragments);
  keep(sums);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[thread_index() * (N / 2) + i] = sums[i];
  watch.end();
}

using Kernel = void (*)(Watch, const std::uint32_t*, int, const std::uint32_t*, int, float*, bool);

template <typename Element, int N>
Kernel kernel_of(ProductForm form) {
  constexpr Depth kAlong = Depth::along_rows, kAcross = Depth::across_rows;
  if (form.a_in_registers) {
    return form.b_across ? product_kernel<Element, N, true, kAlong, kAcross>
                         : product_kernel<Element, N, true, kAlong, kAlong>;
  }
  if (form.a_across) {
    return form.b_across ? product_kernel<Element, N, false, kAcross, kAcross>
                         : product_kernel<Element, N, false, kAcross, kAlong>;
  }
  return form.b_across ? product_kernel<Element, N, false, kAlong, kAcross>
                       : product_kernel<Element, N, false, kAlong, kAlong>;
}

template <int... kIndex>
Kernel kernel_of(Dtype dtype, int n, ProductForm form, std::integer_sequence<int, kIndex...>) {
  Kernel kernel = nullptr;
  const auto take = [&]<int N>() {
    if (n == N) {
      kernel = dtype == Dtype::bf16 ? kernel_of<__nv_bfloat16, N>(form) : kernel_of<__half, N>(form);
    }
  };
  (take.template operator()<kProductWidths[kIndex]>(), ...);
  ORRERY_CHECK(kernel != nullptr, "no product of width ", n);
  return kernel;
}

std::vector<std::uint32_t> words_of(std::span<const std::uint16_t> elements) {
  std::vector<std::uint32_t> words;
  for (std::size_t i = 0; i + 1 < elements.size(); i += 2) {
    words.push_back(elements[i] | std::uint32_t{elements[i + 1]} << 16);
  }
  return words;
}

}  // namespace

std::vector<float> product(Dtype dtype, int n, ProductForm form, std::span<const std::uint16_t> a,
                           std::span<const std::uint16_t> b, std::span<const float> d, bool add) {
  constexpr int kWidths = static_cast<int>(std::size(kProductWidths));
  const std::vector<std::uint32_t> a_words = words_of(a), b_words = words_of(b);
  const Copied<std::uint32_t> a_copy(a_words), b_copy(b_words);
  const Copied<float> d_copy(d);
  run(kernel_of(dtype, n, form, std::make_integer_sequence<int, kWidths>()), kWarpgroup,
      a.size_bytes() + b.size_bytes(), a_copy.data(), static_cast<int>(a_words.size()), b_copy.data(),
      static_cast<int>(b_words.size()), d_copy.data(), add);
  return d_copy.fetch();
}

}  // namespace orrery::test::sm90
