// Copies of the copy unit, into shared memory and out of it, and of matrices out of registers.
#include "gpu/kernel/sm90/probe.cuh"
#include "gpu/kernel/sm90/probes.hpp"

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

__global__ void cluster_box_kernel(Watch watch, const __grid_constant__ CUtensorMap map, int rows, BoxPlace at,
                                   unsigned blocks, unsigned char* out) {
  if (watch.only_watches()) return;
  __shared__ Barrier barrier;
  const int bytes = rows * kPanelRowBytes + 2 * static_cast<int>(kGuardBytes);
  const bool named = (blocks >> cluster_rank() & 1) != 0;
  leave_untouched(bytes);
  if (thread_index() == 0) {
    barrier_init(barrier, 1);
    fence_barrier_init();
    barrier_expect(barrier, named ? rows * kPanelRowBytes : 0);
  }
  cluster_sync();
  if (cluster_rank() == 0 && elect_one()) {
    copy_box_to_cluster(shared_address(image + kGuardBytes), &map, barrier, at.column, at.row, at.head, at.batch,
                        static_cast<std::uint16_t>(blocks), kEvictNormal);
  }
  barrier_wait(barrier, 0);
  if (!named) sleep_microseconds(kLate);  // so that what is copied by mistake is seen
  show(bytes, out + cluster_rank() * bytes);
  sleep_microseconds(kLate);
  cluster_sync();
  watch.end();
}

__global__ void bytes_kernel(Watch watch, const unsigned char* from, int offset, int count, int bytes,
                             unsigned char* out) {
  if (watch.only_watches()) return;
  __shared__ Barrier barrier;
  leave_untouched(bytes);
  if (thread_index() == 0) {
    barrier_init(barrier, 1);
    fence_barrier_init();
  }
  __syncthreads();
  if (elect_one()) {
    barrier_expect(barrier, count);
    copy_bytes(shared_address(image + kGuardBytes + offset), from, count, barrier);
  }
  barrier_wait(barrier, 0);
  show(bytes, out);
  sleep_microseconds(kLate);
  watch.end();
}

__global__ void reduce_kernel(Watch watch, float* into, const float* from, int count, int times) {
  if (watch.only_watches()) return;
  float* const staged = reinterpret_cast<float*>(image);
  for (int turn = 0; turn < times; ++turn) {
    for (int i = thread_index(); i < count; i += kWarp) staged[i] = from[i];
    fence_async_proxy();
    __syncwarp();
    if (thread_index() == 0) {
      reduce_bytes(into, shared_address(staged), count * static_cast<int>(sizeof(float)));
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
  run(box_kernel, 1, kWarp, bytes_of(rows), map, rows, at, keep, out.data());
  return as_bytes(out.fetch());
}

std::array<std::vector<std::byte>, 2> box_to_cluster(const CUtensorMap& map, int rows, BoxPlace at, unsigned blocks) {
  const Copied<unsigned char> out(2 * bytes_of(rows), 0);
  run(cluster_box_kernel, 2, kWarp, bytes_of(rows), map, rows, at, blocks, out.data());
  const std::vector<std::byte> both = as_bytes(out.fetch());
  const auto middle = both.begin() + static_cast<std::ptrdiff_t>(bytes_of(rows));
  return {std::vector(both.begin(), middle), std::vector(middle, both.end())};
}

std::vector<std::byte> row_of_bytes(std::span<const std::byte> from, std::size_t offset, std::size_t count) {
  const Copied<std::byte> source(from);
  const std::size_t bytes = offset + count + 2 * kGuardBytes;
  const Copied<unsigned char> out(bytes, 0);
  run(bytes_kernel, 1, kWarp, bytes, reinterpret_cast<const unsigned char*>(source.data()), static_cast<int>(offset),
      static_cast<int>(count), static_cast<int>(bytes), out.data());
  return as_bytes(out.fetch());
}

std::vector<float> reduce(std::span<const float> into, std::size_t offset, std::span<const float> from, int times) {
  const Copied<float> target(into), source(from);
  run(reduce_kernel, 1, kWarp, from.size_bytes(), target.data() + offset, source.data(), static_cast<int>(from.size()),
      times);
  return target.fetch();
}

std::vector<std::uint32_t> store_matrices(std::span<const int> at) {
  const Copied<int> places(at);
  const Copied<std::uint32_t> out(4 * kWarp, 0);
  run(matrices_kernel, 1, kWarp, 0, places.data(), out.data());
  return out.fetch();
}

}  // namespace orrery::test::sm90
