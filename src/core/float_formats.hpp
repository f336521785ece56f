// The two 16-bit float formats, one number at a time. bf16 is the upper half of an fp32; fp16 is IEEE binary16,
// subnormals included. Narrowing rounds to nearest, ties to even, and overflows to infinity; a NaN stays a NaN with its
// sign.
#pragma once

#include <bit>
#include <cstdint>

namespace orrery {

inline float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float fp16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
  // The exponent bias differs by 112. Multiplying by 2^112 moves it exactly, and normalises subnormals as it does.
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const std::uint32_t special =
      (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u | magnitude : std::bit_cast<std::uint32_t>(scaled);
  return std::bit_cast<float>(sign | special);
}

inline std::uint16_t float_to_fp16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t narrow;
  if (magnitude > 0x7f800000u) {
    narrow = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and up
    narrow = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal, rounded, in the low bits
    narrow = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {  // re-bias the exponent and round; a carry out of the mantissa is the right answer, infinity included
    narrow = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | narrow);
}

}  // namespace orrery
