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

// The maps of an fp32 tensor to which boxes of `rows` tokens of one head are added (reduce_strips(), reduce_box()).
// Strips: [batch][heads][width / 8][tokens][8], boxes of 8 strips, in shared memory one after the other, 32 bytes a
// row. Panel: boxes of 32 columns, 128-byte rows with chunks exchanged as above. Width is a multiple of 8.
CUtensorMap strips_map(const TensorView& tensor, int rows);
CUtensorMap float_panel_map(const TensorView& tensor, int rows);

}  // namespace orrery::kernels::cuda::sm90
