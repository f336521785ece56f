// One element of a tensor of any dtype, as float64: for references and verification, where clarity is worth more than
// speed.
#pragma once

#include <cstring>

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

}  // namespace orrery
