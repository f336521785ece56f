// Picks the Hopper instance for a dtype and a head_dim. Columns past the head's own are zeros that are multiplied too.
#include <cuda_runtime_api.h>

#include "device/check.hpp"
#include "kernels/cuda/shapes.hpp"
#include "kernels/cuda/sm90/forward/attend_forward.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {
namespace {

template <Dtype kDtype>
void dispatch(const AttendForward& call, device::StreamHandle stream) {
  const std::int64_t head_dim = call.query.width;
  if (head_dim <= 64) return launch_attend_forward<kDtype, 64>(call, stream);
  if (head_dim <= 96) return launch_attend_forward<kDtype, 96>(call, stream);
  if (head_dim <= 128) return launch_attend_forward<kDtype, 128>(call, stream);
  if (head_dim <= 192) return launch_attend_forward<kDtype, 192>(call, stream);
  launch_attend_forward<kDtype, 256>(call, stream);
}

}  // namespace

bool runs_here() {
  int device = 0, major = 0, minor = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor == kComputeCapability;
}

void attend_forward_16bit(const AttendForward& call, device::StreamHandle stream) {
  const std::int64_t head_dim = call.query.width;
  ORRERY_CHECK(head_dim > 0 && head_dim <= 256 && head_dim % 8 == 0, "head_dim ", head_dim);
  ORRERY_CHECK(call.query.dtype != Dtype::fp32, "dtype ", to_string(call.query.dtype));
  ORRERY_CHECK(call.scale >= 0.0f, "a scale of ", call.scale);
  ORRERY_CHECK(call.scratch != nullptr, "no scratch");
  if (!call.first || !call.last) check_float_groups(call.accumulator, 2);
  if (call.query.dtype == Dtype::bf16) {
    dispatch<Dtype::bf16>(call, stream);
  } else {
    dispatch<Dtype::fp16>(call, stream);
  }
}

}  // namespace orrery::kernels::cuda::sm90
