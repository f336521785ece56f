// Kernels that show what the instructions of Hopper do (kernels/cuda/sm90/ptx.cuh), each with the host's view of what
// went in and what came out. Each returns when its kernel has ended, and a kernel that waits for what never comes ends
// in an error after some seconds.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "orrery/tensor.hpp"

namespace orrery::test::sm90 {

// Products: D[64][N] (+)= A[64][kDepth] B[kDepth][N], in steps of 16.

inline constexpr int kProductRows = 64, kDepth = 128;
inline constexpr int kProductWidths[] = {64, 80, 96, 112, 128, 192, 256};

struct ProductForm {
  bool a_in_registers;      // then its depth is that of registers
  bool a_across, b_across;  // whether the depth runs from row to row of the matrix in shared memory
};
// a: the image of A in shared memory, or 4 words of two elements a step of each of 128 threads; b: the image of B;
// d: the N / 2 registers of each of 128 threads, before and after. `add`: of the first step; the others add.
std::vector<float> product(Dtype dtype, int n, ProductForm form, std::span<const std::uint16_t> a,
                           std::span<const std::uint16_t> b, std::span<const float> d, bool add);

// Copies into shared memory, which is kUntouched before, with kGuardBytes more on either side.

inline constexpr std::byte kUntouched{0xa5};
inline constexpr std::size_t kGuardBytes = 1024;

struct BoxPlace {
  int column, row, head, batch;
};
enum class KeepLines { first, normal, last };
std::vector<std::byte> box(const CUtensorMap& map, int rows, BoxPlace at, KeepLines keep);
// The tensor's elements after `times` times the box, `rows` rows in the order of shared memory, has been added to them;
// after each time what lay in shared memory is overwritten. The view has no data.
std::vector<float> reduce(const TensorView& tensor, std::span<const float> elements, int rows, BoxPlace at,
                          std::span<const float> box, int times);
// The four matrices of a warp's stmatrix, each of 8 rows of 16 bytes, which lane l puts at row l of `at` 16-byte places
// (32 of them, a permutation); lane l's register i is 100 l + i.
std::vector<std::uint32_t> store_matrices(std::span<const int> at);

// Barriers: what a thread found, in the order of the calls that the definitions show.

std::vector<int> arrivals();
std::vector<int> messages();
std::vector<int> bytes_expected();
std::vector<int> named();
std::vector<int> elected();

// Threads of two warpgroups of three hold 200 floats each: in[i][thread] comes back as out[199 - i][thread].
inline constexpr int kHeld = 200, kHolders = 256;
std::vector<float> held(std::span<const float> in);

}  // namespace orrery::test::sm90
