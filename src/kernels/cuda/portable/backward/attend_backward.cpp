// Picks the instance for a dtype and a head_dim: columns past the head's own are zeros that are multiplied too, so the
// steps are small where heads are common.
#include <cstdint>

#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "kernels/cuda/shapes.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {
namespace {

// The indices and counters of the kernel are 32 bits wide, and its last tile may end past the last row.
constexpr std::int64_t kMaxRows = INT32_MAX - 1024;

template <Dtype kDtype>
void dispatch(const AttendBackward& call, device::StreamHandle stream, BackwardTiles tiles) {
  const std::int64_t head_dim = call.query.width;
  if (head_dim <= 32) return launch_attend_backward<kDtype, 32>(call, stream, tiles);
  if (head_dim <= 64) return launch_attend_backward<kDtype, 64>(call, stream, tiles);
  if (head_dim <= 96) return launch_attend_backward<kDtype, 96>(call, stream, tiles);
  if (head_dim <= 128) return launch_attend_backward<kDtype, 128>(call, stream, tiles);
  if (head_dim <= 192) return launch_attend_backward<kDtype, 192>(call, stream, tiles);
  launch_attend_backward<kDtype, 256>(call, stream, tiles);
}

}  // namespace

void attend_backward_16bit(const AttendBackward& call, device::StreamHandle stream, BackwardTiles tiles) {
  const TensorView &query = call.query, &key = call.key;
  if (query.elements() == 0 || key.elements() == 0) return;
  ORRERY_CHECK(query.width <= 256 && query.width % 8 == 0, "head_dim ", query.width);
  ORRERY_CHECK(query.tokens <= kMaxRows && key.tokens <= kMaxRows, query.tokens, " queries and ", key.tokens, " keys");
  ORRERY_CHECK(query.dtype != Dtype::fp32, "dtype ", to_string(query.dtype));
  ORRERY_CHECK(call.scratch != nullptr, "no scratch");
  ORRERY_CHECK(reinterpret_cast<std::uintptr_t>(call.key_ranges.rows) % sizeof(KeyRange) == 0,
               "key ranges that are not aligned to their size: ", call.key_ranges.rows);
  for (const TensorView& gradient : {call.grad_query, call.grad_key, call.grad_value}) check_float_groups(gradient, 4);
  if (query.dtype == Dtype::bf16) {
    dispatch<Dtype::bf16>(call, stream, tiles);
  } else {
    dispatch<Dtype::fp16>(call, stream, tiles);
  }
}

std::size_t attend_backward_16bit_scratch_bytes(std::int64_t batch, std::int64_t query_len, std::int64_t heads) {
  const std::int64_t tiles = (query_len + kRangeTile - 1) / kRangeTile;  // none is smaller
  const std::int64_t turns = 2 * batch * heads * tiles;                  // of a tile none has more
  return kSmShareBytes + static_cast<std::size_t>(1 + turns) * sizeof(std::int32_t);
}

}  // namespace orrery::kernels::cuda
