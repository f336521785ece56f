// A small problem, with what a test varies.
#pragma once

#include <string>

#include "orrery/problem.hpp"

namespace orrery::test {

struct Heads {
  int query = 4, key_value = 2, dim = 16;
};

inline AttentionProblem problem_of(const std::string& mask, std::int64_t seq_len, Heads heads = {},
                                   Dtype dtype = Dtype::fp32) {
  AttentionProblem problem;
  problem.seq_len = seq_len;
  problem.heads = heads.query;
  problem.kv_heads = heads.key_value;
  problem.head_dim = heads.dim;
  problem.dtype = dtype;
  problem.mask = Mask::parse(mask, seq_len);
  return problem;
}

}  // namespace orrery::test
