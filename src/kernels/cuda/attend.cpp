// The front of the attention kernels: what they take, and which of them a call is for.
#include "kernels/cuda/attend.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "device/check.hpp"
#include "kernels/cuda/fp32/attend_fp32.hpp"
#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "kernels/cuda/portable/forward/attend_forward.hpp"
#include "kernels/cuda/shapes.hpp"
#include "kernels/cuda/sm90/backward/attend_backward.hpp"
#include "kernels/cuda/sm90/forward/attend_forward.hpp"
#include "kernels/rowwise.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr std::int64_t kMaxHeadDim = 256;
constexpr std::int64_t kMaxTileKeys = 1024;  // no kernel's tile of keys is larger: indices past a block's end fit
constexpr std::int64_t kChunkBytes = 16;     // what is read at once of 16-bit tensors
constexpr std::int64_t kMostlyPadding = 32;  // up to here, half and more of what Hopper's kernels multiply

void check_operands(const TensorView& query, const TensorView& key, const TensorView& value,
                    const KeyRanges& key_ranges) {
  const char* refused = attend_refuses(query.dtype, query.width);
  ORRERY_CHECK(refused == nullptr, refused);
  ORRERY_CHECK(key.dtype == query.dtype && value.dtype == query.dtype, "dtypes differ: ", to_string(query.dtype), ", ",
               to_string(key.dtype), " and ", to_string(value.dtype));
  check_same_shape(key, value);
  ORRERY_CHECK(key.width == query.width, "head_dims differ: ", query.width, " and ", key.width);
  ORRERY_CHECK(key.heads > 0 ? query.heads % key.heads == 0 : query.heads == 0, query.heads, " heads over ", key.heads);
  ORRERY_CHECK(query.batch == key.batch, "batches differ: ", query.batch, " and ", key.batch);
  ORRERY_CHECK(key.tokens < INT32_MAX - kMaxTileKeys, "a block of ", key.tokens, " keys");
  ORRERY_CHECK((key_ranges.rows == nullptr) == (key_ranges.tiles == nullptr), "key ranges without their bounds");
  for (const TensorView& t : {query, key, value}) {
    ORRERY_CHECK(attend_takes(t), "a tensor that is not aligned to 16 bytes: ", t.data);
  }
}

// A tensor of a call: fp32, [batch, tokens, heads, width] as of `like`.
void check_floats(const TensorView& tensor, const TensorView& like, std::int64_t width) {
  check_fp32({tensor});
  check_same_rows(tensor, like);
  ORRERY_CHECK(tensor.width == width, "rows of ", tensor.width, " instead of ", width);
}

// `taken`: the Hopper kernels of the pass take what is asked, if it is 16-bit.
KernelFamily family_of(Kernels kernels, Dtype dtype, bool taken) {
  if (dtype == Dtype::fp32) return KernelFamily::fp32;
  return taken && kernels == Kernels::best && sm90::runs_here() ? KernelFamily::hopper : KernelFamily::portable;
}

void attend_with(KernelFamily family, const AttendBackward& call, device::StreamHandle stream) {
  switch (family) {
    case KernelFamily::fp32:
      return attend_backward_fp32(call, stream);
    case KernelFamily::portable:
      return attend_backward_16bit(call, stream);
    case KernelFamily::hopper:
      return sm90::attend_backward_16bit(call, stream);
  }
}

}  // namespace

const char* attend_refuses(Dtype dtype, std::int64_t head_dim) {
  if (head_dim < 1 || head_dim > kMaxHeadDim) return "CUDA kernels take a head_dim from 1 to 256";
  if (dtype != Dtype::fp32 && head_dim % 8 != 0)
    return "CUDA kernels take a head_dim that is a multiple of 8 in bf16 and fp16";
  return nullptr;
}

bool attend_takes(const TensorView& tensor) {
  if (tensor.dtype == Dtype::fp32) return true;
  const auto element = static_cast<std::int64_t>(size_of(tensor.dtype));
  const auto fits = [&](std::int64_t extent, std::int64_t stride) {
    return extent <= 1 || stride * element % kChunkBytes == 0;
  };
  return reinterpret_cast<std::uintptr_t>(tensor.data) % kChunkBytes == 0 && fits(tensor.batch, tensor.batch_stride) &&
         fits(tensor.tokens, tensor.token_stride) && fits(tensor.heads, tensor.head_stride);
}

std::string_view to_string(KernelFamily family) {
  switch (family) {
    case KernelFamily::fp32:
      return "fp32";
    case KernelFamily::portable:
      return "portable";
    case KernelFamily::hopper:
      return "hopper";
  }
  fail(ErrorCode::bug, "no kernels have the number ", static_cast<int>(family));
}

std::string_view forward_stays_portable(std::int64_t head_dim, float scale) {
  if (head_dim <= kMostlyPadding) return "at a head_dim of at most 32, half of what Hopper's multiply would be padding";
  return scale >= 0.0f ? "" : "Hopper's take no negative scale";
}

std::string_view backward_stays_portable(std::int64_t head_dim) {
  if (head_dim <= kMostlyPadding) return forward_stays_portable(head_dim, 1.0f);
  return head_dim <= sm90::kMaxBackwardHeadDim ? "" : "Hopper's backward pass takes no larger head_dim than 256";
}

KernelFamily forward_kernel(Kernels kernels, Dtype dtype, std::int64_t head_dim, float scale) {
  return family_of(kernels, dtype, forward_stays_portable(head_dim, scale).empty());
}

KernelFamily backward_kernel(Kernels kernels, Dtype dtype, std::int64_t head_dim, float) {
  return family_of(kernels, dtype, backward_stays_portable(head_dim).empty());
}

std::string attend_backward_refuses(Kernels kernels, Dtype dtype, std::int64_t head_dim) {
  if (head_dim <= kNarrowHeadDim || backward_kernel(kernels, dtype, head_dim, 1.0f) != KernelFamily::portable)
    return "";
  int device = 0, available = 0;
  ORRERY_CUDA_CHECK(cudaGetDevice(&device));
  ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&available, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (available >= kWideSharedBytes) return "";
  return concat("the backward pass of ", to_string(dtype), " at a head_dim above ", kNarrowHeadDim, " takes up to ",
                kWideSharedBytes >> 10, " KiB of shared memory a block, and CUDA device ", device, " has ",
                available >> 10);
}

void attend_forward(const AttendForward& call, device::StreamHandle stream) {
  const TensorView& query = call.query;
  check_operands(query, call.key, call.value, call.key_ranges);
  ORRERY_CHECK(call.scratch != nullptr, "no scratch");
  if (!call.first || !call.last) {
    check_floats(call.accumulator, query, query.width);
    check_floats(call.row_max, query, 1);
    check_floats(call.row_sum, query, 1);
  }
  if (call.last) {
    check_same_shape(call.out, query);
    check_floats(call.lse, query, 1);
    ORRERY_CHECK(call.out.dtype == query.dtype, "out of dtype ", to_string(call.out.dtype));
    ORRERY_CHECK(attend_takes(call.out), "out is not aligned to 16 bytes: ", call.out.data);
  }
  if (query.elements() == 0) return;
  switch (forward_kernel(call.kernels, query.dtype, query.width, call.scale)) {
    case KernelFamily::fp32:
      return attend_forward_fp32(call, stream);
    case KernelFamily::portable:
      return attend_forward_16bit(call, stream);
    case KernelFamily::hopper:
      return sm90::attend_forward_16bit(call, stream);
  }
}

std::size_t attend_backward_scratch_bytes(std::int64_t batch, std::int64_t query_len, std::int64_t heads, std::int64_t,
                                          std::int64_t, std::int64_t) {
  return attend_backward_16bit_scratch_bytes(batch, query_len, heads);  // fp32 needs less
}

void attend_backward(const AttendBackward& call, device::StreamHandle stream) {
  const TensorView &query = call.query, &key = call.key;
  check_operands(query, key, call.value, call.key_ranges);
  ORRERY_CHECK(call.scratch != nullptr, "no scratch");
  check_same_shape(query, call.grad_out);
  ORRERY_CHECK(call.grad_out.dtype == query.dtype, "grad_out of dtype ", to_string(call.grad_out.dtype));
  ORRERY_CHECK(attend_takes(call.grad_out), "grad_out is not aligned to 16 bytes: ", call.grad_out.data);
  check_floats(call.lse, query, 1);
  check_floats(call.delta, query, 1);
  check_floats(call.grad_query, query, query.width);
  check_floats(call.grad_key, key, key.width);
  check_floats(call.grad_value, key, key.width);
  if (call.last) {
    for (const TensorView& out : {call.key_out, call.value_out}) {
      check_same_shape(out, key);
      ORRERY_CHECK(out.dtype == query.dtype, "a result of dtype ", to_string(out.dtype));
      ORRERY_CHECK(attend_takes(out), "a result that is not aligned to 16 bytes: ", out.data);
    }
  }
  if (key.elements() == 0) return;
  const KernelFamily family = backward_kernel(call.kernels, query.dtype, query.width, call.scale);
  // The 16-bit kernels store or round what they find when it is all there is; the rest are passes over memory.
  if (call.first && family != KernelFamily::fp32 && query.elements() > 0) return attend_with(family, call, stream);
  if (call.first) {
    clear(call.grad_key, stream);
    clear(call.grad_value, stream);
  }
  if (query.elements() > 0) {
    AttendBackward adding = call;
    adding.first = adding.last = false;
    attend_with(family, adding, stream);
  }
  if (call.last) {
    copy(call.key_out, call.grad_key, stream);
    copy(call.value_out, call.grad_value, stream);
  }
}

}  // namespace orrery::kernels::cuda
