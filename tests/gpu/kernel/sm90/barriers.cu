// Barriers, and the registers of warpgroups. Every kernel writes what its threads found into `found`.
#include "gpu/kernel/sm90/probe.cuh"
#include "gpu/kernel/sm90/probes.hpp"
#include "kernels/cuda/sm90/tensor_map.hpp"

namespace orrery::test::sm90 {
namespace {

// Whether the phase of this parity has ended, at once.
__device__ __forceinline__ int ended(Barrier& barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n\t.reg .pred p;\n\t"
      "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
      "selp.u32 %0, 1, 0, p;\n\t}"
      : "=r"(done)
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
  return static_cast<int>(done);
}

// One thread, a barrier of three arrivals.
__global__ void arrivals_kernel(Watch watch, int* found) {
  if (watch.only_watches()) return;
  __shared__ Barrier barrier;
  if (thread_index() == 0) {
    barrier_init(barrier, 3);
    fence_barrier_init();
    barrier_wait(barrier, 1);
    *found++ = ended(barrier, 1);
    for (std::uint32_t phase = 0; phase < 4; ++phase) {
      for (int arrival = 0; arrival < 3; ++arrival) {
        *found++ = ended(barrier, phase % 2);
        barrier_arrive(barrier);
      }
      barrier_wait(barrier, phase % 2);
      *found++ = ended(barrier, phase % 2);
    }
  }
  watch.end();
}

// Thread 32 hands eight messages over to thread 0, late, through one word.
__global__ void messages_kernel(Watch watch, int* found) {
  if (watch.only_watches()) return;
  __shared__ Barrier full, empty;
  __shared__ volatile int word;
  if (thread_index() == 0) {
    barrier_init(full, 1);
    barrier_init(empty, 1);
    fence_barrier_init();
    word = 0;
  }
  __syncthreads();
  for (std::uint32_t message = 0; message < 8; ++message) {
    if (thread_index() == 32) {
      barrier_wait(empty, message % 2 ^ 1);
      sleep_microseconds(20);
      word = static_cast<int>(message) + 1;
      barrier_arrive(full);
    } else if (thread_index() == 0) {
      barrier_wait(full, message % 2);
      found[message] = word;
      sleep_microseconds(message % 3 * 20);
      found[message] += 100 * word;
      barrier_arrive(empty);
    }
  }
  watch.end();
}

constexpr int kBoxRows = 8;

// One thread, a barrier of one arrival that expects two boxes of kBoxRows rows, each of one number.
__global__ void bytes_expected_kernel(Watch watch, const __grid_constant__ CUtensorMap map, int* found) {
  if (watch.only_watches()) return;
  __shared__ Barrier barrier;
  __shared__ __align__(1024) std::uint16_t into[2 * kBoxRows][kPanelColumns];
  if (thread_index() == 0) {
    barrier_init(barrier, 1);
    fence_barrier_init();
    for (auto& row : into) {
      for (std::uint16_t& element : row) element = 0;
    }
    fence_async_proxy();
    barrier_expect(barrier, sizeof into);
    sleep_microseconds(20);
    *found++ = ended(barrier, 0);
    copy_box(shared_address(into[0]), &map, barrier, 0, 0, 0, 0, kEvictNormal);
    sleep_microseconds(50);
    *found++ = ended(barrier, 0);
    copy_box(shared_address(into[kBoxRows]), &map, barrier, 0, kBoxRows, 0, 0, kEvictNormal);
    barrier_wait(barrier, 0);
    for (const auto& row : into) {
      int sum = 0;
      for (const std::uint16_t& element : row) sum += element;
      *found++ = sum;
    }
    *found++ = ended(barrier, 0);
    *found++ = ended(barrier, 1);
  }
  watch.end();
}

// Four warps. Warp 1 arrives at barrier 1 late, and warp 0 waits for it; meanwhile warp 3 and 2 the same at barrier 2.
// Then warp 1 arrives early, and goes on before warp 0 is there.
__global__ void named_kernel(Watch watch, int* found) {
  if (watch.only_watches()) return;
  __shared__ volatile int words[4];
  if (thread_index() < 4) words[thread_index()] = 0;
  __syncthreads();
  const int warp = thread_index() / kWarp, lane = thread_index() % kWarp;
  if (warp == 0) {
    named_barrier_sync(1, 2 * kWarp);
    if (lane == 31) found[0] = words[0];
    while (words[1] == 0) __nanosleep(100);
    __syncwarp();
    named_barrier_sync(1, 2 * kWarp);
    if (lane == 31) found[1] = words[1];
  } else if (warp == 1) {
    sleep_microseconds(50);
    if (lane == 0) words[0] = 7;
    __syncwarp();
    named_barrier_arrive(1, 2 * kWarp);
    named_barrier_arrive(1, 2 * kWarp);
    if (lane == 0) words[1] = 8;
  } else {
    if (warp == 3) {
      sleep_microseconds(100);
      if (lane == 0) words[2] = 9;
      __syncwarp();
    }
    named_barrier_sync(2, 2 * kWarp);
    if (warp == 2 && lane == 31) found[2] = words[2];
  }
  watch.end();
}

__global__ void elected_kernel(Watch watch, int* found) {
  if (watch.only_watches()) return;
  if (elect_one()) atomicAdd(found + thread_index() / kWarp, 1);
  watch.end();
}

constexpr int kHeldThreads = kHolders + kWarpgroup;

// The first warpgroup gives registers away; compiled for as many as the launch has, the others' floats would spill.
__global__ void __launch_bounds__(kHeldThreads, 1) held_kernel(Watch watch, const float* in, float* out) {
  if (watch.only_watches()) return;
  if (__shfl_sync(kAllLanes, thread_index() / kWarpgroup, 0) == 0) {
    fewer_registers<40>();
  } else {
    more_registers<232>();
    const int holder = thread_index() - kWarpgroup;
    float floats[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) floats[i] = in[i * kHolders + holder];
    keep(floats);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) out[i * kHolders + holder] = floats[kHeld - 1 - i];
  }
  watch.end();
}

template <typename... Parameters, typename... Arguments>
std::vector<int> find(std::size_t count, int threads, void (*kernel)(Watch, Parameters...), Arguments... arguments) {
  const Copied<int> found(count, -2);
  run(kernel, threads, 0, arguments..., found.data());
  return found.fetch();
}
std::vector<int> find_counts(std::size_t count, int threads, void (*kernel)(Watch, int*)) {
  const Copied<int> found(count, 0);
  run(kernel, threads, 0, found.data());
  return found.fetch();
}

}  // namespace

std::vector<int> arrivals() {
  return find(17, kWarp, arrivals_kernel);
}
std::vector<int> messages() {
  return find(8, 2 * kWarp, messages_kernel);
}
std::vector<int> bytes_expected() {
  std::vector<std::uint16_t> elements;
  for (std::uint16_t row = 1; row <= 2 * kBoxRows; ++row) elements.insert(elements.end(), kPanelColumns, row);
  const Copied<std::uint16_t> tensor(elements);
  const TensorView view = TensorView::dense(tensor.data(), Dtype::bf16, 1, 2 * kBoxRows, 1, kPanelColumns);
  return find(2 * kBoxRows + 4, kWarp, bytes_expected_kernel, tensor_map(view, kBoxRows));
}
std::vector<int> named() {
  return find(3, 4 * kWarp, named_kernel);
}
std::vector<int> elected() {
  return find_counts(3, 3 * kWarp, elected_kernel);
}

std::vector<float> held(std::span<const float> in) {
  const Copied<float> source(in), out(in.size(), -1.0f);
  run(held_kernel, kHeldThreads, 0, source.data(), out.data());
  return out.fetch();
}

}  // namespace orrery::test::sm90
