// Counting inputs: attention over them is a matter of counting. All queries are 0, so that a query gives every key that
// it sees the same weight, and lse is the log of their number. Column c of a value is +1 or -1 as bit(c) of the key's
// position is 0 or 1, so that out, times that number, is how many more of the keys seen have the bit 0: an integer, and
// one key too few or too many changes it. Keys equal values. A grad_out has one element that is not 0: in the column
// (position + head) mod width, +1 or -1 as the quotient is even or odd.
//
// Columns of different heads and batches tell different bits, so that heads which are mixed up show. CUDA devices do
// the same in kernels/cuda/generate.cu.
#pragma once

#include <cstdint>

#include "orrery/generate.hpp"

namespace orrery::io {

inline constexpr int kCountingBits = 24;  // up to as many keys fp32 counts them

constexpr int counting_bit(std::int64_t batch, std::int64_t head, std::int64_t column) {
  return static_cast<int>((column + 5 * head + 11 * batch) % kCountingBits);
}

// +1 or -1.
constexpr int counting_sign(std::int64_t position, int bit) {
  return (position >> bit) % 2 == 0 ? 1 : -1;
}

// Sums of signs over the positions [0, end).
constexpr std::int64_t sign_sum(int bit, std::int64_t end) {
  const std::int64_t half = std::int64_t{1} << bit, rest = end % (2 * half);
  return rest <= half ? rest : 2 * half - rest;
}
// Of the products of the signs of two bits.
constexpr std::int64_t product_sum(int bit, int other, std::int64_t end) {
  if (bit == other) return end;
  const int low = bit < other ? bit : other, high = bit < other ? other : bit;
  const std::int64_t half = std::int64_t{1} << high, rest = end % (2 * half);
  return rest < half ? sign_sum(low, rest) : -sign_sum(low, rest - half);
}

constexpr float counting_value(Generated tensor, std::int64_t batch, std::int64_t position, std::int64_t head,
                               std::int64_t column, std::int64_t width) {
  if (tensor == Generated::query) return 0;
  if (tensor != Generated::grad_out)
    return static_cast<float>(counting_sign(position, counting_bit(batch, head, column)));
  const std::int64_t place = position + head;
  return place % width == column ? static_cast<float>(place / width % 2 == 0 ? 1 : -1) : 0;
}

}  // namespace orrery::io
