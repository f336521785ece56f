// One element of a tensor of any dtype, as float64: for references and verification, where clarity is worth more than
// speed.
#pragma once

#include <cstring>
#include <span>

#include "core/float_formats.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

inline double load_element(const TensorView& tensor, std::int64_t batch, std::int64_t token, std::int64_t head,
                           std::int64_t column) {
  const std::byte* at = tensor.at(batch, token, head) + column * static_cast<std::int64_t>(size_of(tensor.dtype));
  if (tensor.dtype == Dtype::fp32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return tensor.dtype == Dtype::bf16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// The row of [width] elements; one branch a row, so that the rest is as fast as its formats allow.
inline void load_row(const TensorView& tensor, std::int64_t batch, std::int64_t token, std::int64_t head,
                     std::span<double> into) {
  const std::byte* at = tensor.at(batch, token, head);
  const auto each = [&](auto element, const auto& to_float) {
    for (double& value : into) {
      std::memcpy(&element, at, sizeof element);
      value = to_float(element);
      at += sizeof element;
    }
  };
  switch (tensor.dtype) {
    case Dtype::fp32:
      return each(float{}, [](float x) { return x; });
    case Dtype::bf16:
      return each(std::uint16_t{}, bf16_to_float);
    case Dtype::fp16:
      return each(std::uint16_t{}, fp16_to_float);
  }
}

// Whether a row has neither NaN nor infinity: none of its exponents is all ones.
inline bool all_finite(const TensorView& tensor, std::int64_t batch, std::int64_t token, std::int64_t head) {
  const std::byte* at = tensor.at(batch, token, head);
  const auto each = [&](auto element, auto exponent) {
    bool finite = true;
    for (std::int64_t c = 0; c < tensor.width; ++c, at += sizeof element) {
      std::memcpy(&element, at, sizeof element);
      finite &= (element & exponent) != exponent;
    }
    return finite;
  };
  switch (tensor.dtype) {
    case Dtype::fp32:
      return each(std::uint32_t{}, std::uint32_t{0x7f800000});
    case Dtype::bf16:
      return each(std::uint16_t{}, std::uint16_t{0x7f80});
    case Dtype::fp16:
      return each(std::uint16_t{}, std::uint16_t{0x7c00});
  }
  return false;
}

}  // namespace orrery
