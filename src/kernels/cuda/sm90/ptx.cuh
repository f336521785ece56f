// The instructions of Hopper (sm_90a) that C++ has no words for: one function each, with its meaning and the section
// of the manual "Parallel Thread Execution ISA" (PTX 9.0) that defines it. Groups of 128 threads (warpgroups) give
// products to the tensor cores, which read shared memory by themselves; one thread gives copies to the tensor memory
// accelerator, which writes shared memory by itself; barriers in shared memory tell both what is done.
//
// Order, for all that follows: ordinary loads and stores and those of the asynchronous units are different *proxies*.
// What the copy unit wrote and an mbarrier announced may be read by products at once, and what products have read
// (after wgmma_wait) may be overwritten by the copy unit once an mbarrier says so; but what threads wrote by ordinary
// stores is visible to the units only after fence_async_proxy() of the writers and a barrier.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/ptx.cuh"

namespace orrery::kernels::cuda::sm90 {

inline constexpr int kWarpgroup = 128;

// Barriers of shared memory (9.7.13.15, mbarrier): a phase ends when the expected arrivals and bytes have come.

struct Barrier {
  std::uint64_t word;
};
static_assert(sizeof(Barrier) == 8, "an mbarrier is one 64-bit word");

// By one thread, before fence_barrier_init() and a block barrier.
__device__ __forceinline__ void barrier_init(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}
// What barrier_init() wrote comes before what the copy unit does with it (9.7.13.4, fence).
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// One arrival, after all that the thread has done: a release, as the wait is an acquire (9.7.13.15.13 and .16).
__device__ __forceinline__ void barrier_arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
// One arrival, and the phase waits for so many bytes of copies more.
__device__ __forceinline__ void barrier_expect(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has ended. Phases count from 0; of a fresh barrier the phase "before the
// first", of parity 1, has ended.
__device__ __forceinline__ void barrier_wait(Barrier& barrier, std::uint32_t parity) {
  asm volatile(
      "{\n\t.reg .pred done;\n\t"
      "again:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
      "@done bra ready;\n\t"
      "bra again;\n\t"
      "ready:\n\t}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}
// The same for those who have nothing else to do, and are to leave the issue slots to others.
__device__ __forceinline__ void barrier_wait_idle(Barrier& barrier, std::uint32_t parity) {
  asm volatile(
      "{\n\t.reg .pred done;\n\t"
      "again:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
      "@done bra ready;\n\t"
      "nanosleep.u32 50;\n\t"
      "bra again;\n\t"
      "ready:\n\t}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

// The 16 hardware barriers of a block (9.7.13.1, barrier); 0 is __syncthreads'. `threads` counts all who arrive or
// wait.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// True in one lane of the warp, all of whose lanes are here (9.7.13.14, elect.sync).
__device__ __forceinline__ bool elect_one() {
  std::uint32_t elected;
  asm volatile(
      "{\n\t.reg .pred p;\n\t"
      "elect.sync _|p, 0xffffffff;\n\t"
      "selp.u32 %0, 1, 0, p;\n\t}"
      : "=r"(elected));
  return elected != 0;
}

// Registers a thread of this warpgroup may use from here on, a multiple of 8 (9.7.19.5, setmaxnreg); once a role, by
// all of its warps.
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "what the instruction takes");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "what the instruction takes");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Copies by the tensor memory accelerator (9.7.9.27.1.2, cp.async.bulk.tensor). One thread asks.

// How long lines of L2 are to be kept: the policies that createpolicy makes for whole ranges, as the 64-bit words
// that it makes them of.
inline constexpr std::uint64_t kEvictFirst = 0x12F0000000000000, kEvictLast = 0x14F0000000000000,
                               kEvictNormal = 0x1000000000000000;

// The map will soon be wanted (9.7.9.15, prefetch).
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// A box whose first element is at (column, row, head, batch); elements outside of the tensor become 0 and count as
// bytes.
__device__ __forceinline__ void copy_box(std::uint32_t into, const CUtensorMap* map, Barrier& barrier, int column,
                                         int row, int head, int batch, std::uint64_t keep) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(into),
      "l"(map), "r"(shared_address(&barrier)), "r"(column), "r"(row), "r"(head), "r"(batch), "l"(keep)
      : "memory");
}
// Adds a box of floats that lies in shared memory to a tensor's; elements outside of the tensor are dropped
// (9.7.9.27.1.3, cp.reduce.async.bulk.tensor).
__device__ __forceinline__ void reduce_box(const CUtensorMap* map, std::uint32_t from, int column, int row, int head,
                                           int batch) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
      "r"(from), "r"(column), "r"(row), "r"(head), "r"(batch)
      : "memory");
}
// Groups of this thread's copies out of shared memory (9.7.9.27.2, completion); the second waits until at most kGroups
// of them still read it.
__device__ __forceinline__ void bulk_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int kGroups>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kGroups) : "memory");
}
// ... until all but kGroups are done and visible.
template <int kGroups>
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kGroups) : "memory");
}

// This thread's stores to shared memory come before what the asynchronous units read after the next barrier
// (9.7.13.4, fence).
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Products of a warpgroup (9.7.15, wgmma).
//
// D[64][N] (+)= A[64][16] B[16][N], in fp32. Warp w of the group has rows 16w..16w+15; lane t has rows g = t / 4 and
// g + 8 and of every 8 columns 2q, 2q+1 (q = t % 4): d[4j], d[4j+1] are row g, columns 8j + 2q, +1; d[4j+2], d[4j+3]
// are row g + 8. A in registers: 4 of two elements, as mma's A (ptx.cuh). So d[8k..8k+7], rounded and packed in
// pairs, are the A of step k of the next product.

// Where a matrix lies in shared memory, as the tensor core reads it (9.7.15.5.1.2.2): panels of 64 columns (128 bytes
// a row), rows one after the other, 16-byte chunks exchanged by chunk ^= row % 8: what a copy with a 128-byte swizzle
// leaves. Panels are aligned to 1024 bytes.
struct MatrixDescriptor {
  std::uint32_t low, high;

  // So many bytes further on; the address is the low 14 bits, in units of 16 bytes.
  __device__ __forceinline__ MatrixDescriptor plus(int bytes) const {
    return {low + static_cast<std::uint32_t>(bytes >> 4), high};
  }
  __device__ __forceinline__ std::uint64_t word() const { return static_cast<std::uint64_t>(high) << 32 | low; }
};
inline constexpr int kPanelColumns = 64, kPanelRowBytes = 128, kSwizzleRows = 8;
inline constexpr std::uint32_t kSwizzle128 = 1u << 30;

// The product's depth runs along a row: A = Q, B = K^T. A step of 16 is plus(32) within a panel.
__device__ __forceinline__ MatrixDescriptor depth_along_rows(std::uint32_t address) {
  constexpr std::uint32_t kRowGroup = kSwizzleRows * kPanelRowBytes;  // from 8 rows to the next 8
  return {1u << 16 | (address >> 4 & 0x3fff), kSwizzle128 | kRowGroup >> 4};
}
// The product's depth runs from row to row: B = V. A step of 16 is plus(2048); `panel_bytes`: from a panel to the
// next, where the matrix has more than 64 columns.
__device__ __forceinline__ MatrixDescriptor depth_across_rows(std::uint32_t address, int panel_bytes) {
  constexpr std::uint32_t kRowGroup = kSwizzleRows * kPanelRowBytes;
  return {static_cast<std::uint32_t>(panel_bytes >> 4) << 16 | (address >> 4 & 0x3fff), kSwizzle128 | kRowGroup >> 4};
}

// Ordinary accesses to the registers of a product come before it. Wanted before the first of a series; not between
// products that add to the same D.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kGroups of the committed groups, the youngest, are under way. The registers of products that may be
// under way are not to be touched; pass those that are awaited through keep() behind it.
template <int kGroups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
// The compiler may not move uses of these registers across.
template <typename Register, int kCount>
__device__ __forceinline__ void keep(Register (&registers)[kCount]) {
#pragma unroll
  for (Register& r : registers) {
    if constexpr (std::is_same_v<Register, float>) {
      asm volatile("" : "+f"(r)::"memory");
    } else {
      asm volatile("" : "+r"(r)::"memory");
    }
  }
}

// Keeps a later wgmma_wait() behind the arithmetic that leads to x. The assembler moves waits up across arithmetic that
// the awaited products have no part in, so that nothing runs beside these, but not across accesses to shared memory:
// here is a store, which happens only where x is above 2^127, to a word that nobody reads.
__device__ __forceinline__ void stay_behind(float x, float& nowhere) {
  asm volatile(
      "{\n\t.reg .pred never;\n\tsetp.gt.f32 never, %0, 0f7f000000;\n\t@never st.shared.f32 [%1], %0;\n\t}" ::"f"(x),
      "r"(shared_address(&nowhere))
      : "memory");
}

enum class Depth { along_rows, across_rows };

// wgmma<Element, N>::shared(d, a, b, add): both operands from shared memory, a along rows unless said otherwise.
// wgmma<Element, N>::registers(d, a, b, add): A from registers. `add` false: D is overwritten, whatever it held.
template <typename Element, int N>
struct Wgmma;

// Lists of the N / 2 registers of D, eight at a time: F makes the first eight words of a list, M eight more.
#define ORRERY_D_16(F, M) F(0, 1, 2, 3, 4, 5, 6, 7)
#define ORRERY_D_32(F, M) ORRERY_D_16(F, M) M(8, 9, 10, 11, 12, 13, 14, 15)
#define ORRERY_D_48(F, M) ORRERY_D_32(F, M) M(16, 17, 18, 19, 20, 21, 22, 23)
#define ORRERY_D_64(F, M) ORRERY_D_48(F, M) M(24, 25, 26, 27, 28, 29, 30, 31)
#define ORRERY_D_80(F, M) ORRERY_D_64(F, M) M(32, 33, 34, 35, 36, 37, 38, 39)
#define ORRERY_D_96(F, M) ORRERY_D_80(F, M) M(40, 41, 42, 43, 44, 45, 46, 47)
#define ORRERY_D_112(F, M) ORRERY_D_96(F, M) M(48, 49, 50, 51, 52, 53, 54, 55)
#define ORRERY_D_128(F, M) ORRERY_D_112(F, M) M(56, 57, 58, 59, 60, 61, 62, 63)
#define ORRERY_D_144(F, M) ORRERY_D_128(F, M) M(64, 65, 66, 67, 68, 69, 70, 71)
#define ORRERY_D_160(F, M) ORRERY_D_144(F, M) M(72, 73, 74, 75, 76, 77, 78, 79)
#define ORRERY_D_176(F, M) ORRERY_D_160(F, M) M(80, 81, 82, 83, 84, 85, 86, 87)
#define ORRERY_D_192(F, M) ORRERY_D_176(F, M) M(88, 89, 90, 91, 92, 93, 94, 95)
#define ORRERY_D_208(F, M) ORRERY_D_192(F, M) M(96, 97, 98, 99, 100, 101, 102, 103)
#define ORRERY_D_224(F, M) ORRERY_D_208(F, M) M(104, 105, 106, 107, 108, 109, 110, 111)
#define ORRERY_D_240(F, M) ORRERY_D_224(F, M) M(112, 113, 114, 115, 116, 117, 118, 119)
#define ORRERY_D_256(F, M) ORRERY_D_240(F, M) M(120, 121, 122, 123, 124, 125, 126, 127)

// As PTX names them, and as the compiler binds them.
#define ORRERY_NAMES(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define ORRERY_MORE_NAMES(...) ", " ORRERY_NAMES(__VA_ARGS__)
#define ORRERY_FLOATS(a, b, c, e, f, g, h, i) \
  "+f"(d[a]), "+f"(d[b]), "+f"(d[c]), "+f"(d[e]), "+f"(d[f]), "+f"(d[g]), "+f"(d[h]), "+f"(d[i])
#define ORRERY_MORE_FLOATS(...) , ORRERY_FLOATS(__VA_ARGS__)

// o0 ... o6 are the numbers of the operands behind D: N / 2 and on.
#define ORRERY_WGMMA_SHARED(N, type, o0, o1, o2, o3, o4)                                                         \
  asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, %" #o2                                                  \
               ", 0;\n\t"                                                                                        \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" ORRERY_D_##N(                \
                   ORRERY_NAMES, ORRERY_MORE_NAMES) "}, %" #o0 ", %" #o1 ", add, 1, 1, %" #o3 ", %" #o4 ";\n\t}" \
               : ORRERY_D_##N(ORRERY_FLOATS, ORRERY_MORE_FLOATS)                                                 \
               : "l"(a.word()), "l"(b.word()), "r"(static_cast<int>(add)), "n"(kA == Depth::across_rows),        \
                 "n"(kB == Depth::across_rows))
#define ORRERY_WGMMA_REGISTERS(N, type, o0, o1, o2, o3, o4, o5, o6)                                                    \
  asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, %" #o5                                                        \
               ", 0;\n\t"                                                                                              \
               "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type                                         \
               " {" ORRERY_D_##N(ORRERY_NAMES, ORRERY_MORE_NAMES) "}, {%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 \
                                                                  ", add, 1, 1, %" #o6 ";\n\t}"                        \
               : ORRERY_D_##N(ORRERY_FLOATS, ORRERY_MORE_FLOATS)                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.word()), "r"(static_cast<int>(add)),                \
                 "n"(kB == Depth::across_rows))

#define ORRERY_WGMMA(N, o0, o1, o2, o3, o4, o5, o6)                                                                 \
  template <typename Element>                                                                                       \
  struct Wgmma<Element, N> {                                                                                        \
    static_assert(kIs16Bit<Element>, "products of bf16 and fp16");                                                  \
    template <Depth kA = Depth::along_rows, Depth kB = Depth::along_rows>                                           \
    static __device__ __forceinline__ void shared(float (&d)[N / 2], MatrixDescriptor a, MatrixDescriptor b,        \
                                                  bool add) {                                                       \
      if constexpr (std::is_same_v<Element, __nv_bfloat16>) {                                                       \
        ORRERY_WGMMA_SHARED(N, "bf16", o0, o1, o2, o3, o4);                                                         \
      } else {                                                                                                      \
        ORRERY_WGMMA_SHARED(N, "f16", o0, o1, o2, o3, o4);                                                          \
      }                                                                                                             \
    }                                                                                                               \
    template <Depth kB = Depth::along_rows>                                                                         \
    static __device__ __forceinline__ void registers(float (&d)[N / 2], const std::uint32_t* a, MatrixDescriptor b, \
                                                     bool add) {                                                    \
      if constexpr (std::is_same_v<Element, __nv_bfloat16>) {                                                       \
        ORRERY_WGMMA_REGISTERS(N, "bf16", o0, o1, o2, o3, o4, o5, o6);                                              \
      } else {                                                                                                      \
        ORRERY_WGMMA_REGISTERS(N, "f16", o0, o1, o2, o3, o4, o5, o6);                                               \
      }                                                                                                             \
    }                                                                                                               \
  };
ORRERY_WGMMA(64, 32, 33, 34, 35, 36, 37, 38)
ORRERY_WGMMA(80, 40, 41, 42, 43, 44, 45, 46)
ORRERY_WGMMA(96, 48, 49, 50, 51, 52, 53, 54)
ORRERY_WGMMA(112, 56, 57, 58, 59, 60, 61, 62)
ORRERY_WGMMA(128, 64, 65, 66, 67, 68, 69, 70)
ORRERY_WGMMA(192, 96, 97, 98, 99, 100, 101, 102)
ORRERY_WGMMA(256, 128, 129, 130, 131, 132, 133, 134)

#undef ORRERY_WGMMA
#undef ORRERY_WGMMA_REGISTERS
#undef ORRERY_WGMMA_SHARED

}  // namespace orrery::kernels::cuda::sm90
