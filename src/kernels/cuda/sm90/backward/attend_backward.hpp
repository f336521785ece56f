// Inside the attention kernels: the backward pass of 16-bit tensors on Hopper.
#pragma once

#include <cstdint>

#include "device/handles.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda::sm90 {

// The largest head_dim these kernels take.
inline constexpr std::int64_t kMaxBackwardHeadDim = 256;

// attend_backward() for bf16 and fp16 tensors that attend_takes(). Gradients have rows aligned to 16 bytes. Scratch as
// attend_backward_16bit_scratch_bytes().
void attend_backward_16bit(const AttendBackward& call, device::StreamHandle stream);

// The same for head_dim of at most kDim. Each is instantiated in a file of its own, instances/backward_*.cu.
template <Dtype kDtype, int kDim>
void launch_attend_backward(const AttendBackward& call, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda::sm90
