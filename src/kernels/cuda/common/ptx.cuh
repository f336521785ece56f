// The instructions that C++ has no words for, one function each: asynchronous copies, matrix fragments to and from
// shared memory, the 16-bit tensor-core product, and conversions. All exist from sm_80 on.
//
// Fragments, by lane t = 0..31, g = t / 4, q = t % 4; a register holds two 16-bit elements, the lower one in its low
// half. mma computes D[16][8] += A[16][16] B[16][8]:
//   A, 4 registers: a0 = A[g][2q, 2q+1], a1 = A[g + 8][2q, 2q+1], a2 = A[g][2q+8, 2q+9], a3 = A[g + 8][2q+8, 2q+9]
//   B, 2 registers: b0 = B[2q, 2q+1][g], b1 = B[2q+8, 2q+9][g]
//   D, 4 floats:    d0, d1 = D[g][2q, 2q+1], d2, d3 = D[g + 8][2q, 2q+1]
// So two accumulators that lie side by side, rounded and packed, are the A of the next product: no lane needs
// another's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace orrery::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <typename Element>
inline constexpr bool kIs16Bit = std::is_same_v<Element, __nv_bfloat16> || std::is_same_v<Element, __half>;

// threadIdx.x and blockIdx.x of one-dimensional launches, read anew by every call: what follows from them need not be
// kept in registers over a loop that wants all of them.
__device__ __forceinline__ int thread_index() {
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  __builtin_assume(index >= 0);
  return index;
}
__device__ __forceinline__ int block_index() {
  int index;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
  __builtin_assume(index >= 0);
  return index;
}

// Of shared memory, as the instructions below take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts the copy of 16 bytes past L1, or of 16 zeros, when `from` is not read. Both addresses are aligned to 16.
__device__ __forceinline__ void cp_async(std::uint32_t into, const void* from, bool read) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(into), "l"(from), "r"(read ? 16 : 0)
               : "memory");
}
// Closes a group of this thread's copies.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kGroups of this thread's groups are under way. Other threads see the bytes after a barrier.
template <int kGroups>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// A barrier in two halves: who arrives goes on, who waits sees what all have written before they arrived. `phase`
// counts the times that all have. By `count` arrivals; a count of warps, when one lane arrives behind __syncwarp() for
// all.
class SplitBarrier {
 public:
  __device__ __forceinline__ void init(int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&state_)), "r"(count) : "memory");
  }
  // Nobody waits any more; its place may be another's.
  __device__ __forceinline__ void end() {
    asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(shared_address(&state_)) : "memory");
  }
  __device__ __forceinline__ void arrive() {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared_address(&state_))
                 : "memory");
  }
  // For the phase of this parity to be over.
  __device__ __forceinline__ void wait(int phase) {
    std::uint32_t over;
    do {
#if __CUDA_ARCH__ >= 900
      asm volatile(
          "{\n.reg .pred over;\nmbarrier.try_wait.parity.shared.b64 over, [%1], %2;\nselp.b32 %0, 1, 0, over;\n}"
          : "=r"(over)
          : "r"(shared_address(&state_)), "r"(phase % 2)
          : "memory");
#else
      asm volatile(
          "{\n.reg .pred over;\nmbarrier.test_wait.parity.shared.b64 over, [%1], %2;\nselp.b32 %0, 1, 0, over;\n}"
          : "=r"(over)
          : "r"(shared_address(&state_)), "r"(phase % 2)
          : "memory");
#endif
    } while (over == 0);
  }

 private:
  std::uint64_t state_;
};

// Four 8 x 8 matrices; lane t gives the address of row t % 8 of matrix t / 8. Register i of lane t is elements
// [t / 4][2q, 2q+1] of matrix i, or, transposed, [2q, 2q+1][t / 4].
__device__ __forceinline__ void ldmatrix(std::uint32_t (&registers)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(address));
}
__device__ __forceinline__ void ldmatrix_trans(std::uint32_t (&registers)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(address));
}

__device__ __forceinline__ void store_shared(std::uint32_t address, std::uint32_t value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// The inverse of ldmatrix.
__device__ __forceinline__ void stmatrix(const std::uint32_t (&registers)[4], std::uint32_t address) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(registers[0]),
               "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
               : "memory");
}
#endif

// d += a b, fragments as above.
template <typename Element>
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  static_assert(kIs16Bit<Element>, "tensor cores take bf16 and fp16 here");
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// 2^x to 2^-22 relative; subnormal results are 0, 2^-inf is 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// log2(x) to 2^-22, relative or absolute; -inf of 0.
__device__ __forceinline__ float log2_approx(float x) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Two floats, rounded to nearest even, in one register.
template <typename Element>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  static_assert(kIs16Bit<Element>, "two elements fill a register");
  std::uint32_t packed;
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  }
  return packed;
}

// Over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

}  // namespace orrery::kernels::cuda
