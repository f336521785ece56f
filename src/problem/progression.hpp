// Arithmetic on arithmetic progressions: the number theory that lets masks be counted without walking their tokens.
#pragma once

#include <cstdint>

namespace orrery {

__extension__ typedef __int128 Wide;  // counts of (query, key) pairs before they are known to fit 63 bits

// Rounded towards minus and plus infinity; divisor >= 1. Stride 1 is so common that it is spared the division.
inline std::int64_t floor_div(std::int64_t value, std::int64_t divisor) {
  if (divisor == 1) return value;
  return value / divisor - (value % divisor < 0 ? 1 : 0);
}
inline std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) {
  if (divisor == 1) return value;
  return value / divisor + (value % divisor > 0 ? 1 : 0);
}
inline std::int64_t modulo(std::int64_t value, std::int64_t divisor) {
  return value - floor_div(value, divisor) * divisor;
}

// Sum over x = 0 .. count-1 of floor((step * x + start) / divisor); step and start not negative, divisor >= 1, and
// step * count + start below 2^63. O(log divisor).
Wide floor_sum(std::int64_t count, std::int64_t step, std::int64_t start, std::int64_t divisor);

// The smallest x >= 0 with low <= (step * x mod modulus) <= high, or -1 when there is none. 0 <= step < modulus,
// 0 < low <= high < modulus. O(log modulus).
std::int64_t first_residue(std::int64_t step, std::int64_t modulus, std::int64_t low, std::int64_t high);

}  // namespace orrery
