// Verification: results against float64, by the definition, row by row, over all ranks, whatever the schedule. Sampled
// rows are drawn over the whole sequence; each rank gives its own keys' share of their softmax in float64, and the
// shares are merged. Of the gradients, dq is checked on the same rows, dk and dv on sampled keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "orrery/attention.hpp"

namespace orrery {

enum class VerifyMode { none, sample, full };
VerifyMode parse_verify_mode(std::string_view text);
std::string_view to_string(VerifyMode mode);

struct Verification {
  VerifyMode mode = VerifyMode::none;
  std::int64_t rows = 0;  // (batch, position, head) rows of out and lse compared
  double out_rel_l2 = 0, lse_max_abs = 0;
  double dq_rel_l2 = 0, dk_rel_l2 = 0, dv_rel_l2 = 0;  // 0 without backward
  std::int64_t wrong = 0;  // rows beyond the tolerance of the dtype, or not finite where the reference is
  std::string worst;       // where the worst row is, and its values; empty when none is wrong
};

// Collective; the same answer on every rank. sample: dk and dv take lse and delta from the run (itself checked by the
// sampled rows); full: everything is recomputed, at O(seq_len^2) in float64. The tensors lie on `device`, which
// computes the reference too; their runs are complete.
Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, VerifyMode mode,
                    std::uint64_t seed = 0, Device device = {});

}  // namespace orrery
