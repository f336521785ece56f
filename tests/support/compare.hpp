// Comparing a tensor with float64 values, and poisoning memory that a kernel must overwrite or must not touch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <span>
#include <vector>

#include "core/element.hpp"
#include "orrery/tensor.hpp"

namespace orrery::test {

// The order in which the expected values of a tensor are listed: [batch, tokens, heads, width], or, for lse and its
// like, [batch, heads, tokens] with width 1.
enum class Order { tokens_heads, heads_tokens };

struct Difference {
  double rel_l2 = 0;   // |actual - expected| / |expected|; plain |actual| where all expected are 0
  double max_abs = 0;  // at batch, token, head, column
  std::int64_t batch = 0, token = 0, head = 0, column = 0;
  double actual = 0, expected = 0;  // there
  std::int64_t wrong = 0;           // NaNs, and infinities that differ
};

// Equal infinities agree. Any NaN, or an infinity on one side only, makes both measures infinite.
inline Difference compare(const TensorView& actual, std::span<const double> expected,
                          Order order = Order::tokens_heads) {
  Difference result;
  double difference_squares = 0, expected_squares = 0;
  for (std::int64_t b = 0; b < actual.batch; ++b) {
    for (std::int64_t t = 0; t < actual.tokens; ++t) {
      for (std::int64_t h = 0; h < actual.heads; ++h) {
        for (std::int64_t c = 0; c < actual.width; ++c) {
          const std::int64_t row = order == Order::tokens_heads ? (b * actual.tokens + t) * actual.heads + h
                                                                : (b * actual.heads + h) * actual.tokens + t;
          const double want = expected[static_cast<std::size_t>(row * actual.width + c)];
          const double have = load_element(actual, b, t, h, c);
          if (have == want) {
            if (std::isfinite(want)) expected_squares += want * want;
            continue;
          }
          double difference = std::abs(have - want);
          if (!std::isfinite(difference)) {
            difference = std::numeric_limits<double>::infinity();
            ++result.wrong;
          }
          difference_squares += difference * difference;
          expected_squares += std::isfinite(want) ? want * want : 0;
          if (difference > result.max_abs) {
            result.max_abs = difference;
            result.batch = b, result.token = t, result.head = h, result.column = c;
            result.actual = have, result.expected = want;
          }
        }
      }
    }
  }
  if (difference_squares > 0) {
    result.rel_l2 = std::sqrt(difference_squares) / (expected_squares > 0 ? std::sqrt(expected_squares) : 1);
  }
  return result;
}

inline std::ostream& operator<<(std::ostream& out, const Difference& d) {
  return out << "rel_l2 " << d.rel_l2 << ", max_abs " << d.max_abs << " at [batch " << d.batch << ", token " << d.token
             << ", head " << d.head << ", column " << d.column << "]: " << d.actual << " for " << d.expected << ", "
             << d.wrong << " wrong";
}

// A NaN whose bits no computation produces, in every format: 0x7fbd7fbd as fp32, 0x7fbd as bf16, and NaN as fp16 too.
inline constexpr std::uint16_t kPoison = 0x7fbd;

inline void poison(std::span<std::byte> memory) {
  for (std::size_t i = 0; i < memory.size(); ++i)
    memory[i] = static_cast<std::byte>(i % 2 ? kPoison >> 8 : kPoison & 0xff);
}

inline bool still_poisoned(std::span<const std::byte> memory) {
  for (std::size_t i = 0; i < memory.size(); ++i) {
    if (memory[i] != static_cast<std::byte>(i % 2 ? kPoison >> 8 : kPoison & 0xff)) return false;
  }
  return true;
}

}  // namespace orrery::test
