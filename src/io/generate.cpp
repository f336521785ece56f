// How an element of the normal recipe gets its value, precisely enough to be done again on another device, bit for bit.
//
// Two neighbouring columns 2c and 2c+1 share one call of Philox4x32-10 (philox.hpp). Its input, 32-bit words in order:
//   counter  position mod 2^32,  position / 2^32,  batch,  head * 2^16 + c
//   key      seed mod 2^32,  (seed / 2^32) xor (tensor * 0x9e3779b9 mod 2^32),  tensor being the number of Generated
// so batch < 2^32, head < 2^16 and column < 2^17. Of the output words w0 w1 w2 w3, the even column takes w0 and w1, the
// odd one w2 and w3. Each of the two words holds two uniform 16-bit integers, its halves; the four are added and
// 131070, the mean of their sum, is taken off. That integer fits in 18 bits and is exact as a float. One float
// multiplication by kScale, the float nearest to sqrt(3 / (2^32 - 1)), makes the variance 1; the product is rounded,
// ties to even, to the tensor's dtype. CUDA devices do the same in kernels/cuda/generate.cu.

#include "orrery/generate.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "core/float_formats.hpp"
#include "io/counting.hpp"
#include "io/cuda_generate.hpp"
#include "io/philox.hpp"
#include "io/rows.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr float kScale = 0x1.bb67aep-16f;
constexpr std::int64_t kMaxBatch = std::int64_t{1} << 32;
constexpr std::int64_t kMaxHeads = std::int64_t{1} << 16;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 17;
// Columns made at a time: enough independent Philox calls to keep vector units busy.
constexpr std::int64_t kBlock = 64;

std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}
std::uint32_t high(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}

io::PhiloxKey key_of(Generated tensor, std::uint64_t seed) {
  return {low(seed), high(seed) ^ (static_cast<std::uint32_t>(tensor) * 0x9e3779b9u)};
}

io::PhiloxCounter counter_of(std::int64_t batch, std::int64_t position, std::int64_t head) {
  const auto where = static_cast<std::uint64_t>(position);
  return {low(where), high(where), static_cast<std::uint32_t>(batch), static_cast<std::uint32_t>(head) << 16};
}

float value_of(std::uint32_t first, std::uint32_t second) {
  const std::uint32_t sum = (first & 0xffffu) + (first >> 16) + (second & 0xffffu) + (second >> 16);
  return static_cast<float>(static_cast<std::int32_t>(sum) - 131070) * kScale;
}

// Columns begin .. begin + kBlock - 1 of a row, begin even.
void make_block(io::PhiloxCounter row, io::PhiloxKey key, std::int64_t begin, std::array<float, kBlock>& values) {
  row[3] += static_cast<std::uint32_t>(begin / 2);
  for (std::uint32_t pair = 0; pair < kBlock / 2; ++pair) {
    const io::PhiloxCounter words = io::philox({row[0], row[1], row[2], row[3] + pair}, key);
    values[2 * pair] = value_of(words[0], words[1]);
    values[2 * pair + 1] = value_of(words[2], words[3]);
  }
}

void store(const std::array<float, kBlock>& values, std::int64_t count, Dtype dtype, std::byte* into) {
  auto* floats = reinterpret_cast<float*>(into);
  auto* halves = reinterpret_cast<std::uint16_t*>(into);
  switch (dtype) {
    case Dtype::fp32:
      for (std::int64_t i = 0; i < count; ++i) floats[i] = values[i];
      break;
    case Dtype::bf16:
      for (std::int64_t i = 0; i < count; ++i) halves[i] = float_to_bf16(values[i]);
      break;
    case Dtype::fp16:
      for (std::int64_t i = 0; i < count; ++i) halves[i] = float_to_fp16(values[i]);
      break;
  }
}

// make(row, begin, values) gives kBlock columns of a row, of which the tensor may have fewer.
struct GeneratedRow {
  std::int64_t batch, position, head;
};

template <typename Make>
void generate_on_host(const TensorView& into, std::span<const Span> positions, const Make& make) {
  const std::int64_t element_bytes = static_cast<std::int64_t>(size_of(into.dtype));
  std::array<float, kBlock> values;
  for (std::int64_t batch = 0; batch < into.batch; ++batch) {
    std::int64_t token = 0;
    for (const Span& span : positions) {
      for (std::int64_t i = 0; i < span.count; ++i, ++token) {
        for (std::int64_t head = 0; head < into.heads; ++head) {
          std::byte* out = into.at(batch, token, head);
          for (std::int64_t begin = 0; begin < into.width; begin += kBlock) {
            make(GeneratedRow{batch, span.at(i), head}, begin, values);
            store(values, std::min(kBlock, into.width - begin), into.dtype, out + begin * element_bytes);
          }
        }
      }
    }
  }
}

}  // namespace

void generate(const TensorView& into, Generated tensor, std::uint64_t seed, std::span<const Span> positions,
              Device device, Recipe recipe) {
  const std::int64_t count = io::checked_count("generate", positions, std::numeric_limits<std::int64_t>::max());
  if (count != into.tokens) refuse("generate: ", count, " positions for ", into.tokens, " tokens");
  if (into.batch > kMaxBatch || into.heads > kMaxHeads || into.width > kMaxWidth) {
    refuse("generate: batch ", into.batch, ", heads ", into.heads, ", width ", into.width, " is beyond ", kMaxBatch,
           ", ", kMaxHeads, ", ", kMaxWidth);
  }
  const io::PhiloxKey key = key_of(tensor, seed);
  if (device.kind == DeviceKind::cuda) {
    return io::cuda_generate(into, tensor, recipe, key, kScale, positions, device.index);
  }
  if (recipe == Recipe::counting) {
    generate_on_host(into, positions, [&](const GeneratedRow& row, std::int64_t begin, auto& values) {
      for (std::int64_t c = 0; c < kBlock; ++c) {
        values[static_cast<std::size_t>(c)] =
            io::counting_value(tensor, row.batch, row.position, row.head, begin + c, into.width);
      }
    });
  } else {
    generate_on_host(into, positions, [&](const GeneratedRow& row, std::int64_t begin, auto& values) {
      make_block(counter_of(row.batch, row.position, row.head), key, begin, values);
    });
  }
}

float generated_value(Generated tensor, std::uint64_t seed, std::int64_t batch, std::int64_t position,
                      std::int64_t head, std::int64_t column) {
  io::PhiloxCounter counter = counter_of(batch, position, head);
  counter[3] += static_cast<std::uint32_t>(column / 2);
  const io::PhiloxCounter words = io::philox(counter, key_of(tensor, seed));
  return column % 2 == 0 ? value_of(words[0], words[1]) : value_of(words[2], words[3]);
}

float counting_value(Generated tensor, std::int64_t batch, std::int64_t position, std::int64_t head,
                     std::int64_t column, std::int64_t width) {
  return io::counting_value(tensor, batch, position, head, column, width);
}

}  // namespace orrery
