#include "problem/progression.hpp"

#include "definition.hpp"
#include "support/catch.hpp"

namespace orrery::test {

TEST_CASE("division rounds towards minus and plus infinity") {
  for (std::int64_t value = -20; value <= 20; ++value) {
    for (std::int64_t divisor = 1; divisor <= 7; ++divisor) {
      std::int64_t floor = -100;
      while ((floor + 1) * divisor <= value) ++floor;
      REQUIRE(floor_div(value, divisor) == floor);
      REQUIRE(ceil_div(value, divisor) == (floor * divisor == value ? floor : floor + 1));
      REQUIRE(modulo(value, divisor) == value - floor * divisor);
    }
  }
}

TEST_CASE("floor_sum sums floors of a line") {
  for (std::int64_t count = 0; count <= 12; ++count) {
    for (std::int64_t step = 0; step <= 15; ++step) {
      for (std::int64_t start = 0; start <= 15; ++start) {
        for (std::int64_t divisor = 1; divisor <= 12; ++divisor) {
          std::int64_t sum = 0;
          for (std::int64_t x = 0; x < count; ++x) sum += (step * x + start) / divisor;
          REQUIRE(static_cast<std::int64_t>(floor_sum(count, step, start, divisor)) == sum);
        }
      }
    }
  }
}

TEST_CASE("floor_sum is exact beyond 63 bits") {
  // The sum of 0 .. n-1 for n = 2^40 is 2^79 - 2^39.
  const std::int64_t n = std::int64_t{1} << 40;
  CHECK(floor_sum(n, 1, 0, 1) == Wide{n} * (n - 1) / 2);
  // 0, 0, 0, 1, 1, 1, ...: three times the sum of 0 .. m-1.
  const std::int64_t m = std::int64_t{1} << 38;
  CHECK(floor_sum(3 * m, 1, 0, 3) == 3 * (Wide{m} * (m - 1) / 2));
}

TEST_CASE("first_residue finds the first multiple whose residue lies in a range") {
  for (std::int64_t modulus = 2; modulus <= 30; ++modulus) {
    for (std::int64_t step = 0; step < modulus; ++step) {
      for (std::int64_t low = 1; low < modulus; ++low) {
        for (std::int64_t high = low; high < modulus; ++high) {
          std::int64_t first = -1;
          for (std::int64_t x = 0; x < modulus && first < 0; ++x) {
            if (step * x % modulus >= low && step * x % modulus <= high) first = x;
          }
          REQUIRE(first_residue(step, modulus, low, high) == first);
        }
      }
    }
  }
}

}  // namespace orrery::test
