// Tensors as the caller holds them: a pointer, a type, four extents and three strides. Orrery never owns one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

enum class Dtype : int { fp32, bf16, fp16 };

constexpr std::size_t size_of(Dtype dtype) {
  return dtype == Dtype::fp32 ? 4 : 2;
}
std::string_view to_string(Dtype dtype);
// "fp32", "bf16" or "fp16", or another name for one of them: float32, float; bfloat16; float16, half. Anything else is
// refused.
Dtype parse_dtype(std::string_view text);

// A non-owning view of [batch, tokens, heads, width] elements. The last stride is 1; the others are free and count
// elements. A per-row quantity such as lse, stored as [batch, heads, tokens], is a view of width 1.
struct TensorView {
  void* data = nullptr;
  Dtype dtype = Dtype::fp32;
  std::int64_t batch = 0, tokens = 0, heads = 0, width = 0;
  std::int64_t batch_stride = 0, token_stride = 0, head_stride = 0;

  // Dense [batch, tokens, heads, width].
  static TensorView dense(void* data, Dtype dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                          std::int64_t width) {
    return {data, dtype, batch, tokens, heads, width, tokens * heads * width, heads * width, width};
  }
  // Dense [batch, heads, tokens] of fp32: the shape of lse.
  static TensorView rows(float* data, std::int64_t batch, std::int64_t heads, std::int64_t tokens) {
    return {data, Dtype::fp32, batch, tokens, heads, 1, heads * tokens, 1, tokens};
  }

  std::int64_t offset(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return b * batch_stride + t * token_stride + h * head_stride;
  }
  std::byte* at(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return static_cast<std::byte*>(data) + offset(b, t, h) * static_cast<std::int64_t>(size_of(dtype));
  }
  std::int64_t elements() const { return batch * tokens * heads * width; }
  friend bool operator==(const TensorView&, const TensorView&) = default;
};

}  // namespace orrery
