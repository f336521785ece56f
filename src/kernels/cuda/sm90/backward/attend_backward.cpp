// Picks the instance for a dtype and a head_dim. Columns past the head's own arrive as zeros, and are multiplied too.
#include "kernels/cuda/sm90/backward/attend_backward.hpp"

#include "kernels/cuda/shapes.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda::sm90 {
namespace {

template <Dtype kDtype>
void dispatch(const AttendBackward& call, device::StreamHandle stream) {
  if (call.query.width <= 64) return launch_attend_backward<kDtype, 64>(call, stream);
  if (call.query.width <= 128) return launch_attend_backward<kDtype, 128>(call, stream);
  if (call.query.width <= 192) return launch_attend_backward<kDtype, 192>(call, stream);
  launch_attend_backward<kDtype, 256>(call, stream);
}

}  // namespace

void attend_backward_16bit(const AttendBackward& call, device::StreamHandle stream) {
  const TensorView& query = call.query;
  if (query.elements() == 0 || call.key.elements() == 0) return;
  ORRERY_CHECK(query.width <= kMaxBackwardHeadDim && query.width % 8 == 0, "head_dim ", query.width);
  ORRERY_CHECK(query.dtype != Dtype::fp32, "dtype ", to_string(query.dtype));
  ORRERY_CHECK(call.scratch != nullptr, "no scratch");
  ORRERY_CHECK(reinterpret_cast<std::uintptr_t>(call.key_ranges.rows) % sizeof(KeyRange) == 0,
               "key ranges that are not aligned to their size: ", call.key_ranges.rows);
  for (const TensorView& gradient : {call.grad_query, call.grad_key, call.grad_value}) check_float_groups(gradient, 4);
  if (query.dtype == Dtype::bf16) {
    dispatch<Dtype::bf16>(call, stream);
  } else {
    dispatch<Dtype::fp16>(call, stream);
  }
}

}  // namespace orrery::kernels::cuda::sm90
