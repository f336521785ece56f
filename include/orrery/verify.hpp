// Verification: results against float64, by the definition, row by row, over all ranks, whatever the schedule. Sampled
// rows are drawn over the whole sequence; each rank gives its own keys' share of their softmax in float64, and the
// shares are merged. Of the gradients, dq is checked on the same rows, dk and dv on sampled keys.
//
// Each row has a limit, and so have the errors of all rows together: a fault that leaves every row within its limit,
// such as one tile of keys that is missing from a long sequence, shows in these. docs/errors.md says what the limits
// are and what they were measured on.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "orrery/attention.hpp"
#include "orrery/generate.hpp"

namespace orrery {

enum class VerifyMode { none, sample, full };
VerifyMode parse_verify_mode(std::string_view text);
std::string_view to_string(VerifyMode mode);

// Errors of all rows together, by kind of result; those of gradients are 0 without backward.
struct AggregateErrors {
  double out_rel_l2 = 0, lse_max_abs = 0, dq_rel_l2 = 0, dk_rel_l2 = 0, dv_rel_l2 = 0;
  // The root mean square over rows of an error relative to what was summed up to the row. Here all rows count alike,
  // in the L2 norm those of the first tokens, which see few keys, count most.
  double out_row_rms = 0, lse_row_rms = 0, dq_row_rms = 0, dk_row_rms = 0, dv_row_rms = 0;
};

inline constexpr std::array<std::pair<std::string_view, double AggregateErrors::*>, 10> kAggregateErrors = {{
    {"out_rel_l2", &AggregateErrors::out_rel_l2},
    {"lse_max_abs", &AggregateErrors::lse_max_abs},
    {"dq_rel_l2", &AggregateErrors::dq_rel_l2},
    {"dk_rel_l2", &AggregateErrors::dk_rel_l2},
    {"dv_rel_l2", &AggregateErrors::dv_rel_l2},
    {"out_row_rms", &AggregateErrors::out_row_rms},
    {"lse_row_rms", &AggregateErrors::lse_row_rms},
    {"dq_row_rms", &AggregateErrors::dq_row_rms},
    {"dk_row_rms", &AggregateErrors::dk_row_rms},
    {"dv_row_rms", &AggregateErrors::dv_row_rms},
}};

struct Verification : AggregateErrors {
  VerifyMode mode = VerifyMode::none;
  std::int64_t rows = 0;  // (batch, position, head) rows of out, lse and dq compared
  std::int64_t keys = 0;  // (batch, position, KV head) rows of dk and dv compared; 0 without backward
  // Rows and keys that were drawn and not compared, because a NaN or an infinity of the inputs reaches them by the
  // mask.
  std::int64_t nonfinite = 0;
  std::int64_t wrong = 0;  // rows and keys with a result beyond its limit, or not finite; each counts once
  std::string worst;       // where the worst of them is, and its values; empty when none is wrong
  AggregateErrors limits;  // what the errors may be

  // The names of the errors that are beyond their limits.
  std::vector<std::string_view> exceeded() const;
  bool right() const { return wrong == 0 && exceeded().empty(); }
  // What is wrong, in one line; empty when all is right.
  std::string complaint() const;
};

struct VerifyOptions {
  VerifyMode mode = VerifyMode::sample;
  std::uint64_t seed = 0;          // of the sample
  Device device = {};              // where the tensors lie, which computes the reference too
  Recipe inputs = Recipe::normal;  // counting: compare with the closed form, in a time linear in seq_len
};

// Collective; the same answer on every rank. sample: dk and dv take lse and delta from the run (itself checked by the
// sampled rows); full: everything is recomputed, at O(seq_len^2) in float64. The runs of the tensors are complete.
Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward,
                    const VerifyOptions& options);
Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, VerifyMode mode,
                    std::uint64_t seed = 0, Device device = {});

struct NonfiniteElement {
  std::int64_t batch, token, head, column;
  double value;
};
// The first NaN or infinity of a tensor in host memory, in the order [batch, token, head, column].
std::optional<NonfiniteElement> find_nonfinite(const TensorView& tensor);

}  // namespace orrery
