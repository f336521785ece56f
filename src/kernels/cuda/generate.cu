// A thread makes eight neighbouring columns of one row: four calls of Philox, which do not wait for one another, and
// one or two stores of 16 bytes where the tensor allows it.
#include "device/check.hpp"
#include "kernels/cuda/common/divisor.cuh"
#include "kernels/cuda/common/elements.cuh"
#include "kernels/cuda/generate.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 8;  // of a thread

static_assert(kColumns * sizeof(std::uint16_t) == 16, "a thread's columns fill one store in 16 bits, two in 32");

struct Words {
  std::uint32_t at[4];
};

// Philox4x32-10, as in io/philox.hpp.
__device__ Words philox(Words counter, std::uint32_t key0, std::uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = std::uint64_t{0xd2511f53} * counter.at[0];
    const std::uint64_t odd = std::uint64_t{0xcd9e8d57} * counter.at[2];
    counter = {{static_cast<std::uint32_t>(odd >> 32) ^ counter.at[1] ^ key0, static_cast<std::uint32_t>(odd),
                static_cast<std::uint32_t>(even >> 32) ^ counter.at[3] ^ key1, static_cast<std::uint32_t>(even)}};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

__device__ float value_of(std::uint32_t first, std::uint32_t second, float scale) {
  const std::uint32_t sum = (first & 0xffffu) + (first >> 16) + (second & 0xffffu) + (second >> 16);
  return static_cast<float>(static_cast<std::int32_t>(sum) - 131070) * scale;
}

// Row `row` of the concatenated spans, of which none is empty.
__device__ std::int64_t position_of(const SpanRows* spans, int count, std::int64_t row) {
  int low = 0, high = count;  // spans[low].row <= row < spans[high].row
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (spans[middle].row <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return spans[low].begin + (row - spans[low].row) * spans[low].stride;
}

struct Launch {
  Generate call;
  std::int64_t groups;            // of columns, in the whole tensor
  Divisor of_row, heads, tokens;  // groups of a row; heads of a token; tokens of a batch
  bool wide;                      // every group begins at a multiple of 16 bytes
};

__device__ Pack<float, kColumns> normal_values(const Generate& call, std::int64_t batch, std::int64_t position,
                                               std::int64_t head, std::int64_t column) {
  const Words counter = {{static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32),
                          static_cast<std::uint32_t>(batch),
                          (static_cast<std::uint32_t>(head) << 16) + static_cast<std::uint32_t>(column / 2)}};
  Pack<float, kColumns> values;
#pragma unroll
  for (int pair = 0; pair < kColumns / 2; ++pair) {
    const Words words =
        philox({{counter.at[0], counter.at[1], counter.at[2], counter.at[3] + pair}}, call.key[0], call.key[1]);
    values.at[2 * pair] = value_of(words.at[0], words.at[1], call.scale);
    values.at[2 * pair + 1] = value_of(words.at[2], words.at[3], call.scale);
  }
  return values;
}

// As in io/counting.hpp.
__device__ Pack<float, kColumns> counting_values(const Generate& call, std::int64_t batch, std::int64_t position,
                                                 std::int64_t head, std::int64_t column) {
  constexpr int kBits = 24;
  const std::int64_t place = position + head, width = call.into.width;
  const float one = place / width % 2 == 0 ? 1.0f : -1.0f;
  Pack<float, kColumns> values;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int bit = static_cast<int>((column + i + 5 * head + 11 * batch) % kBits);
    values.at[i] = call.fill == Fill::zero       ? 0.0f
                   : call.fill == Fill::signs    ? ((position >> bit) % 2 == 0 ? 1.0f : -1.0f)
                   : place % width == column + i ? one
                                                 : 0.0f;
  }
  return values;
}

__global__ void __launch_bounds__(kThreads) generate_groups(const Launch launch) {
  const TensorView& into = launch.call.into;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= launch.groups) return;
  const auto [row, group] = launch.of_row.divide(index);
  const auto [place, head] = launch.heads.divide(row);
  const auto [batch, token] = launch.tokens.divide(place);
  const std::int64_t position = position_of(launch.call.spans, launch.call.span_count, token);

  const std::int64_t column = group * kColumns;
  const Pack<float, kColumns> values = launch.call.fill == Fill::normal
                                           ? normal_values(launch.call, batch, position, head, column)
                                           : counting_values(launch.call, batch, position, head, column);

  const int size = into.dtype == Dtype::fp32 ? 4 : 2;
  const std::int64_t element = batch * into.batch_stride + token * into.token_stride + head * into.head_stride + column;
  std::byte* out = static_cast<std::byte*>(into.data) + element * size;
  if (launch.wide && column + kColumns <= into.width) {
    store_elements<kColumns>(out, into.dtype, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    if (column + i < into.width) store_elements<1>(out + i * size, into.dtype, {{values.at[i]}});
  }
}

}  // namespace

void generate(const Generate& call, device::StreamHandle stream) {
  const TensorView& into = call.into;
  if (into.elements() == 0) return;
  const auto size = static_cast<std::int64_t>(size_of(into.dtype));
  const std::int64_t of_row = (into.width + kColumns - 1) / kColumns;
  const std::int64_t strides = into.batch_stride | into.token_stride | into.head_stride;
  Launch launch = {call,
                   of_row * into.heads * into.tokens * into.batch,
                   Divisor(of_row),
                   Divisor(into.heads),
                   Divisor(into.tokens),
                   reinterpret_cast<std::uintptr_t>(into.data) % 16 == 0 && strides * size % 16 == 0};
  generate_groups<<<static_cast<unsigned>((launch.groups + kThreads - 1) / kThreads), kThreads, 0, stream>>>(launch);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
