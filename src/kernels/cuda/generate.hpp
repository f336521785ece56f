// Inputs from counters, made on the device: the recipe that opens io/generate.cpp, bit for bit.
#pragma once

#include <cstdint>

#include "device/handles.hpp"
#include "kernels/cuda/key_ranges.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

struct Generate {
  TensorView into;        // [batch, tokens, heads, width], written; within the recipe's limits
  const SpanRows* spans;  // [span_count], on the device, none empty: the positions of the tokens, in order
  int span_count;
  std::uint32_t key[2];  // of Philox: from the seed and the tensor
  float scale;           // of the integer sums
};

void generate(const Generate& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
