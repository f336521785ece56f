// Inside the attention kernels: the backward pass of 16-bit tensors, on any device from sm_80 on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/handles.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery::kernels::cuda {

// Shared memory of a block: what sm_80 and sm_90 have at least, and what sm_86 and sm_89 have.
inline constexpr int kWideSharedBytes = 163 << 10, kNarrowSharedBytes = 99 << 10;
inline constexpr int kNarrowHeadDim = 192;  // above, no tiling fits the smaller devices

// Tilings of a head_dim that differ in speed and in the last bits of the result, not in meaning. `wide` fits into
// kWideSharedBytes; `narrow` into kNarrowSharedBytes, up to kNarrowHeadDim; `fitting` is wide where the device allows
// it, else narrow.
enum class BackwardTiles { fitting, wide, narrow };

// attend_backward() for bf16 and fp16 tensors that attend_takes(). Gradients have rows aligned to 16 bytes.
void attend_backward_16bit(const AttendBackward& call, device::StreamHandle stream,
                           BackwardTiles tiles = BackwardTiles::fitting);
std::size_t attend_backward_16bit_scratch_bytes(std::int64_t batch, std::int64_t query_len, std::int64_t heads);

// The same for head_dim of at most kDim. Each is instantiated in a file of its own, instances/backward_*.cu.
template <Dtype kDtype, int kDim>
void launch_attend_backward(const AttendBackward& call, device::StreamHandle stream, BackwardTiles tiles);

}  // namespace orrery::kernels::cuda
