// Inside the attention kernels: the forward pass of 16-bit tensors, on any device from sm_80 on.
#pragma once

#include "device/handles.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda {

// Tilings of a head_dim differ in speed and in the last bits of the result, not in meaning. Variant 0 is the best
// known; a head_dim with fewer than kForwardVariants takes its last for those it has not.
inline constexpr int kForwardVariants = 3;

// attend_forward() for bf16 and fp16 tensors that attend_takes().
void attend_forward_16bit(const AttendForward& call, device::StreamHandle stream, int variant = 0);

// The same for head_dim of at most kDim. Each is instantiated in a file of its own, instances/forward_*.cu.
template <Dtype kDtype, int kDim>
void launch_attend_forward(const AttendForward& call, device::StreamHandle stream, int variant);

}  // namespace orrery::kernels::cuda
