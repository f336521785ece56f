// The attention problem, without any word of how it will be distributed.
#pragma once

#include <cstdint>
#include <string>

#include "orrery/mask.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

struct AttentionProblem {
  std::int64_t batch = 1;
  std::int64_t seq_len = 0;
  int heads = 1;
  int kv_heads = 1;  // divides heads; query head h reads KV head h / (heads / kv_heads)
  int head_dim = 64;
  Dtype dtype = Dtype::fp32;
  Mask mask = Mask::full(0);
  double scale = 0;  // multiplies the scores; 0 means 1 / sqrt(head_dim)

  int group() const { return heads / kv_heads; }
  double effective_scale() const;

  // Throws ErrorCode::invalid with the offending values: sizes below 1 (seq_len may be 0), heads % kv_heads != 0,
  // head_dim > 256, a mask made for another length, a scale that is not finite or whose size leaves [2^-126, 2^126] and
  // is not 0, sizes whose bytes overflow 63 bits.
  void validate() const;

  // Floating-point operations that the mask asks for, a multiply-add as two: 4 * pairs * head_dim forward, 2.5 times
  // that backward, over all heads and batches.
  double forward_flops() const;
  double backward_flops() const { return 2.5 * forward_flops(); }

  // "seq_len=16384 batch=1 heads=6 ..." in a fixed order: what ranks compare before they start.
  std::string text() const;
};

}  // namespace orrery
