// How the tensor memory accelerator of Hopper sees a tensor: which box of it one copy moves, and how the rows of that
// box lie in shared memory.
#pragma once

#include <cuda.h>

#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda::sm90 {

// The map of a 16-bit tensor as [batch][heads][tokens][width], from whose boxes of 64 columns and `rows` tokens of one
// head come panels of 128-byte rows, their 16-byte chunks exchanged by chunk ^= row % 8. What lies outside of the
// tensor arrives as zeros. The pointer and all strides are multiples of 16 bytes; rows is at most 256.
CUtensorMap tensor_map(const TensorView& tensor, int rows);

// The same of an fp32 tensor, whose panels are 32 columns wide.
CUtensorMap float_map(const TensorView& tensor, int rows);

}  // namespace orrery::kernels::cuda::sm90
