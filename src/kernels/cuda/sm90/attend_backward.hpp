// Inside the attention kernels: the backward pass of 16-bit tensors on Hopper (sm_90a).
#pragma once

#include <cstdint>

#include "device/handles.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda::sm90 {

// The largest head_dim these kernels take.
inline constexpr std::int64_t kMaxBackwardHeadDim = 128;

// attend_backward() for bf16 and fp16 tensors that attend_takes(), head_dim a multiple of 8. Gradients have rows
// aligned to 16 bytes. Scratch as attend_backward_16bit_scratch_bytes(). sm_margin: processors to leave to others.
void attend_backward(const AttendBackward& call, int sm_margin, device::StreamHandle stream);

// The same for head_dim of at most kDim. Each is instantiated in a file of its own, instances/backward_*.cu.
template <Dtype kDtype, int kDim>
void launch_attend_backward(const AttendBackward& call, int sm_margin, device::StreamHandle stream);

}  // namespace orrery::kernels::cuda::sm90
