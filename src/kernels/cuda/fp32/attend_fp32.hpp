// The attention kernels of fp32 tensors: what attend_forward() and attend_backward() run for them. Any head_dim up to
// 256, any strides. Sums are exact in the sense of docs/design/0004-small-terms.md, and their order is fixed.
#pragma once

#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda {

// Shapes are checked, and there are queries.
void attend_forward_fp32(const AttendForward& call, device::StreamHandle stream);

// Shapes are checked, and there are queries and keys. Always deterministic.
void attend_backward_fp32(const AttendBackward& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
