// References for verification, in float64: what the rows of a device add to the softmax and to the gradients of a few
// sampled rows (verify/shares.hpp), by the definition. A sample is a row of doubles; it visits rows of two
// tensors. Nothing here knows of positions or masks: which rows a sample visits is given as ranges of them.
//
// The order of all sums is fixed, so a share has the same bits whenever it is computed. Pointers are to the device, and
// all work is put on `stream`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/handles.hpp"
#include "orrery/tensor.hpp"

namespace orrery::kernels::cuda {

// The doubles of a sample's gradient_shares().
constexpr std::size_t gradient_sums(std::size_t head_dim) {
  return 2 * head_dim + 5;
}

struct RowRange {
  std::int64_t begin, end;
};

// What one sample visits: the rows in ranges[first_range, last_range) of heads [head, head + head_count) of a batch.
struct Visit {
  std::int64_t batch;
  std::int64_t rows;  // in the ranges together
  std::int32_t head, head_count;
  std::int32_t first_range, last_range;
};

struct Visits {
  const Visit* of;         // [samples]
  const RowRange* ranges;  // of all samples, none empty
  int samples;             // at most kMostVisits
};

inline constexpr int kMostVisits = 65535;

// Blocks that share the work of a sample; each leaves a part, and the parts are then merged in order.
inline constexpr int kVisitSlices = 64;

// The doubles that `parts` of the calls below must hold.
constexpr std::size_t visit_parts(std::size_t samples, std::size_t head_dim) {
  return samples * kVisitSlices * 2 * (head_dim + 3);
}

// A sample is a query; it visits keys and values.
struct SoftmaxShares {
  Visits visits;
  const double* query;    // [samples, head_dim]
  TensorView key, value;  // [batch, tokens, kv_heads, head_dim]
  double scale;
  double* parts;
  // [samples, head_dim + 4], written. With weight = exp(score - max): the sum of weight * value, max, the sum of
  // weight, of |weight * value|^2, of weight * |key|.
  double* shares;
};
void softmax_shares(const SoftmaxShares& call, device::StreamHandle stream);

// A sample is a pair of rows (a, b) and visits pairs of rows (x, y). With p = exp(scale a.x - lse) and
// ds = p (b.y - delta) scale, its sums are those of ds x and of p y. With (a, b) = (query, grad_out) and (x, y) = (key,
// value) the first is grad_query; the other way round they are grad_key and grad_value. Beside these sums, five
// sizes of what was summed up, with spread^2 = scale^2 ((b.y)^2 + delta^2 + |b|^2 |y|^2 / head_dim): the sums of p |x|,
// of (p |x| spread)^2, of (p |y|)^2, of |x|^2 (spread^2 + scale^2) and of |y|^2.
struct GradientShares {
  Visits visits;
  const double *a, *b;  // [samples, head_dim]
  TensorView x, y;      // [batch, tokens, heads, head_dim]
  // Of the visited rows, [batch, heads, tokens], or else of the samples, [samples]. Where lse is -inf nothing is added.
  const double *lse, *delta;
  bool of_visited;
  double scale;
  double* parts;
  double* sums;  // [samples, gradient_sums(head_dim)], written: of ds x, of p y, and of the five sizes
};
void gradient_shares(const GradientShares& call, device::StreamHandle stream);

// lse, and delta = sum over head_dim of out * grad_out, of every row.
struct RowSums {
  TensorView lse;                 // [batch, tokens, heads, 1]
  TensorView out, grad_out;       // [batch, tokens, heads, head_dim]
  double *lse_sums, *delta_sums;  // [batch, heads, tokens], written
};
void row_sums(const RowSums& call, device::StreamHandle stream);

// flags[(batch * heads + head) * tokens + token] is 1 where the row holds a NaN or an infinity, else 0.
void nonfinite_rows(const TensorView& tensor, std::uint8_t* flags, device::StreamHandle stream);

struct RowPlace {
  std::int64_t batch, token, head;
};

// Row i of `from` at places[i], as doubles, goes to into[i * stride].
void load_rows(const TensorView& from, const RowPlace* places, int count, double* into, std::int64_t stride,
               device::StreamHandle stream);

}  // namespace orrery::kernels::cuda
