#include "orrery/problem.hpp"

#include <charconv>
#include <cmath>
#include <limits>

#include "orrery/error.hpp"
#include "progression.hpp"

namespace orrery {
namespace {

constexpr int kMaxHeadDim = 256;
// Up to here the number of (query, key) pairs is sure to fit 63 bits.
constexpr std::int64_t kMaxSeqLen = (std::int64_t{1} << 31) - 1;

constexpr double kLeastScale = 0x1p-126, kMostScale = 0x1p126;

// The shortest text that reads back as the same number.
std::string exact_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace

double AttentionProblem::effective_scale() const {
  return scale != 0 ? scale : 1 / std::sqrt(double(head_dim));
}

void AttentionProblem::validate() const {
  const auto at_least_one = [](const char* name, std::int64_t value) {
    if (value < 1) refuse("problem: ", name, " is ", value, ": at least 1 is needed");
  };
  at_least_one("batch", batch);
  at_least_one("heads", heads);
  at_least_one("kv_heads", kv_heads);
  at_least_one("head_dim", head_dim);
  if (seq_len < 0 || seq_len > kMaxSeqLen) {
    refuse("problem: seq_len is ", seq_len, ": 0 to ", kMaxSeqLen, " tokens are supported");
  }
  if (heads % kv_heads != 0) {
    refuse("problem: kv_heads ", kv_heads, " does not divide heads ", heads,
           ": every KV head serves equally many heads");
  }
  if (head_dim > kMaxHeadDim) refuse("problem: head_dim is ", head_dim, ": at most ", kMaxHeadDim, " is supported");
  if (mask.seq_len() != seq_len) {
    refuse("problem: the mask was made for ", mask.seq_len(), " tokens, but seq_len is ", seq_len);
  }
  // Kernels hold the scale, and its product with log2(e), in fp32; a denormal one would be flushed to 0 by some.
  const double size = std::abs(scale);
  if (scale != 0 && !(size >= kLeastScale && size <= kMostScale)) {
    refuse("problem: scale is ", scale, ": kernels compute in fp32, and need its size between 2^-126 (", kLeastScale,
           ") and 2^126 (", kMostScale, "), or 0 for 1/sqrt(head_dim)");
  }
  // The running state is fp32 whatever the dtype, so the largest tensor takes four bytes an element.
  constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();
  const Wide bytes_of_one = Wide{sizeof(float)} * head_dim * heads * seq_len;
  if (bytes_of_one > kMaxBytes || bytes_of_one * batch > kMaxBytes) {
    refuse("problem: batch ", batch, " x seq_len ", seq_len, " x heads ", heads, " x head_dim ", head_dim,
           " in fp32 is more than 2^63 - 1 bytes");
  }
}

double AttentionProblem::forward_flops() const {
  const Span whole[] = {{0, seq_len, 1}};
  return 4.0 * static_cast<double>(pairs(mask, whole, whole)) * head_dim * heads * static_cast<double>(batch);
}

std::string AttentionProblem::text() const {
  return concat("seq_len=", seq_len, " batch=", batch, " heads=", heads, " kv_heads=", kv_heads, " head_dim=", head_dim,
                " dtype=", to_string(dtype), " scale=", exact_text(effective_scale()), " mask=", mask.text());
}

}  // namespace orrery
