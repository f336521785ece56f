// The 16-bit formats against their definition in float64.
#include <cmath>
#include <random>

#include "core/float_formats.hpp"
#include "orrery/error.hpp"
#include "orrery/tensor.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

struct Format {
  int mantissa_bits, min_exponent, max_exponent;
};
constexpr Format kBf16 = {7, -126, 127}, kFp16 = {10, -14, 15};

// The nearest number of the format, ties to even, by scaling its last place to 1.
double rounded(double value, const Format& format) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const double ulp = std::ldexp(1.0, exponent - format.mantissa_bits);
  const double nearest = std::nearbyint(value / ulp) * ulp;
  return std::abs(nearest) >= std::ldexp(1.0, format.max_exponent + 1) ? std::copysign(INFINITY, value) : nearest;
}

TEST_CASE("narrowing rounds to nearest even, with subnormals, overflow and NaN") {
  std::mt19937 generator(3);
  for (int i = 0; i < 1000000; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(generator());
    if (i % 3 == 1) bits = (bits & 0xffff0000u) | 0x8000u;      // halfway between two bf16
    if (i % 3 == 2) bits = (bits & 0x8fffe000u) + 0x32001000u;  // about the range of fp16, halfway or near
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value)) {
      REQUIRE(std::isnan(bf16_to_float(float_to_bf16(value))));
      REQUIRE(std::isnan(fp16_to_float(float_to_fp16(value))));
    } else {
      REQUIRE(static_cast<double>(bf16_to_float(float_to_bf16(value))) == rounded(value, kBf16));
      REQUIRE(static_cast<double>(fp16_to_float(float_to_fp16(value))) == rounded(value, kFp16));
    }
  }
}

TEST_CASE("widening is exact, and narrowing undoes it") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const int exponent = static_cast<int>(bits >> 10 & 0x1f);
    const double fraction = bits & 0x3ff, sign = bits & 0x8000 ? -1 : 1;
    if (exponent < 31) {
      const double value = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
      REQUIRE(static_cast<double>(fp16_to_float(half)) == sign * value);
      REQUIRE(float_to_fp16(fp16_to_float(half)) == half);
    } else {
      REQUIRE((fraction != 0 ? std::isnan(fp16_to_float(half))
                             : static_cast<double>(fp16_to_float(half)) == sign * INFINITY));
    }
    if (!std::isnan(bf16_to_float(half))) REQUIRE(float_to_bf16(bf16_to_float(half)) == half);
  }
}

TEST_CASE("dtypes have names") {
  for (Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) CHECK(parse_dtype(to_string(dtype)) == dtype);
  for (const char* name : {"float32", "float"}) CHECK(parse_dtype(name) == Dtype::fp32);
  for (const char* name : {"float16", "half"}) CHECK(parse_dtype(name) == Dtype::fp16);
  CHECK(parse_dtype("bfloat16") == Dtype::bf16);
  CHECK_THROWS_AS(parse_dtype("fp64"), Error);
  CHECK_THROWS_WITH(parse_dtype("fp64"), ContainsSubstring("\"fp64\""));
}

}  // namespace
}  // namespace orrery::test
