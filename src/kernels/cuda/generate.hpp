// Inputs made on the device, by the recipes that open io/generate.cpp and io/counting.hpp, bit for bit.
#pragma once

#include <cstdint>

#include "device/handles.hpp"
#include "kernels/cuda/key_ranges.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

// normal: from counters. The rest are counting inputs: of queries, of keys and values, and of grad_out.
enum class Fill { normal, zero, signs, one_a_row };

struct Generate {
  TensorView into;        // [batch, tokens, heads, width], written; within the recipe's limits
  const SpanRows* spans;  // [span_count], on the device, none empty: the positions of the tokens, in order
  int span_count;
  std::uint32_t key[2];  // of Philox: from the seed and the tensor
  float scale;           // of the integer sums
  Fill fill;
};

void generate(const Generate& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
