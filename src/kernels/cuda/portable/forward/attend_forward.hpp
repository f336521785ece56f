// Inside the attention kernels: the forward pass of 16-bit tensors, on any device from sm_80 on.
#pragma once

#include "device/handles.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda {

// attend_forward() for bf16 and fp16 tensors that attend_takes().
void attend_forward_16bit(const AttendForward& call, device::StreamHandle stream);

// The same for head_dim of at most kDim. Each is instantiated in a file of its own, instances/forward_*.cu.
template <Dtype kDtype, int kDim>
void launch_attend_forward(const AttendForward& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
