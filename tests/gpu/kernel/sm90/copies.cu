// Copies of the copy unit, into shared memory and out of it, and of matrices out of registers.
#include "gpu/kernel/sm90/probe.cuh"
#include "gpu/kernel/sm90/probes.hpp"
#include "kernels/cuda/sm90/tensor_map.hpp"

namespace orrery::test::sm90 {
namespace {

extern __shared__ __align__(1024) unsigned char image[];

// After a wait that ended too early, copies may still come; a block must not be gone by then.
constexpr unsigned kLate = 50;

__device__ __forceinline__ void leave_untouched(int bytes) {
  for (int i = thread_index(); i < bytes; i += kWarp) image[i] = static_cast<unsigned char>(kUntouched);
  fence_async_proxy();
}
__device__ __forceinline__ void show(int bytes, unsigned char* out) {
  __syncwarp();
  for (int i = thread_index(); i < bytes; i += kWarp) out[i] = image[i];
}

__global__ void box_kernel(Watch watch, const __grid_constant__ CUtensorMap map, int rows, BoxPlace at, KeepLines keep,
                           unsigned char* out) {
  if (watch.only_watches()) return;
  __shared__ Barrier barrier;
  const int bytes = rows * kPanelRowBytes + 2 * static_cast<int>(kGuardBytes);
  leave_untouched(bytes);
  if (thread_index() == 0) {
    barrier_init(barrier, 1);
    fence_barrier_init();
  }
  __syncthreads();
  if (elect_one()) {
    prefetch_map(&map);
    barrier_expect(barrier, rows * kPanelRowBytes);
    copy_box(shared_address(image + kGuardBytes), &map, barrier, at.column, at.row, at.head, at.batch,
             keep == KeepLines::first  ? kEvictFirst
             : keep == KeepLines::last ? kEvictLast
                                       : kEvictNormal);
  }
  barrier_wait(barrier, 0);
  show(bytes, out);
  sleep_microseconds(kLate);
  watch.end();
}

__global__ void reduce_kernel(Watch watch, const __grid_constant__ CUtensorMap map, BoxPlace at, const float* from,
                              int count, int times) {
  if (watch.only_watches()) return;
  float* const staged = reinterpret_cast<float*>(image);
  for (int turn = 0; turn < times; ++turn) {
    for (int i = thread_index(); i < count; i += kWarp) staged[i] = from[i];
    fence_async_proxy();
    __syncwarp();
    if (thread_index() == 0) {
      reduce_box(&map, shared_address(staged), at.column, at.row, at.head, at.batch);
      bulk_commit();
      bulk_wait_read<0>();
    }
    __syncwarp();
  }
  for (int i = thread_index(); i < count; i += kWarp) staged[i] = 1e30f;
  if (thread_index() == 0) bulk_wait<0>();
  watch.end();
}

__global__ void matrices_kernel(Watch watch, const int* at, std::uint32_t* out) {
  if (watch.only_watches()) return;
  __shared__ __align__(16) std::uint32_t words[kWarp * 4];
  const std::uint32_t lane = static_cast<std::uint32_t>(thread_index());
  for (std::uint32_t i = 0; i < 4; ++i) words[lane * 4 + i] = ~0u;
  __syncwarp();
  const std::uint32_t registers[4] = {100 * lane, 100 * lane + 1, 100 * lane + 2, 100 * lane + 3};
#if __CUDA_ARCH__ >= 900
  stmatrix(registers, shared_address(words + 4 * at[lane]));
#endif
  __syncwarp();
  for (std::uint32_t i = 0; i < 4; ++i) out[lane * 4 + i] = words[lane * 4 + i];
  watch.end();
}

std::size_t bytes_of(int rows) {
  return static_cast<std::size_t>(rows * kPanelRowBytes) + 2 * kGuardBytes;
}
std::vector<std::byte> as_bytes(std::span<const unsigned char> found) {
  std::vector<std::byte> bytes;
  for (const unsigned char byte : found) bytes.push_back(std::byte{byte});
  return bytes;
}

}  // namespace

std::vector<std::byte> box(const CUtensorMap& map, int rows, BoxPlace at, KeepLines keep) {
  const Copied<unsigned char> out(bytes_of(rows), 0);
  run(box_kernel, kWarp, bytes_of(rows), map, rows, at, keep, out.data());
  return as_bytes(out.fetch());
}

std::vector<float> reduce(const TensorView& tensor, std::span<const float> elements, int rows, BoxPlace at,
                          std::span<const float> box, int times) {
  const Copied<float> target(elements), source(box);
  TensorView view = tensor;
  view.data = target.data();
  run(reduce_kernel, kWarp, box.size_bytes(), float_map(view, rows), at, source.data(), static_cast<int>(box.size()),
      times);
  return target.fetch();
}

std::vector<std::uint32_t> store_matrices(std::span<const int> at) {
  const Copied<int> places(at);
  const Copied<std::uint32_t> out(4 * kWarp, 0);
  run(matrices_kernel, kWarp, 0, places.data(), out.data());
  return out.fetch();
}

}  // namespace orrery::test::sm90
