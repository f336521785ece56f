// One rank's share of reference rows, in float64: of a query row, the part of its softmax and of its gradient that
// comes from the rank's own keys; of a key row, the part of its gradients that comes from the rank's own queries. They
// are computed where the rank's tensors lie, for several samples at a time.
//
// Rows stand one behind the other in flat vectors: [samples, head_dim] and the like.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "orrery/attention.hpp"
#include "verify/samples.hpp"

namespace orrery {

using Doubles = std::vector<double>;

// A row of this rank's.
struct OwnRow {
  std::int64_t batch, token;
  int head;
};

// lse and delta of this rank's rows, [batch, heads, tokens].
struct RowSums {
  Doubles lse, delta;
};

constexpr std::size_t softmax_width(std::size_t head_dim) {
  return head_dim + 4;
}
constexpr std::size_t grad_query_width(std::size_t head_dim) {
  return head_dim + 3;
}
constexpr std::size_t grad_key_value_width(std::size_t head_dim) {
  return 2 * head_dim + 4;
}

class Shares {
 public:
  virtual ~Shares() = default;

  // The numbers of the rows, (batch * heads + head) * tokens + token, that hold a NaN or an infinity.
  virtual std::vector<std::int64_t> nonfinite(const TensorView& tensor) = 0;
  // The rows of `tensors`, side by side.
  virtual Doubles load(std::span<const OwnRow> rows, std::span<const TensorView* const> tensors) = 0;

  // Of each query what its softmax sums up over the rank's keys that it sees, [samples, head_dim + 4]. With weight =
  // exp(score - max): the sum of weight * value, max, the sum of weight, of |weight * value|^2, of weight * |key|.
  virtual Doubles softmax(std::span<const Sample> samples, std::span<const double> query) = 0;
  // [samples, head_dim + 3]: the gradient; the sum of p * |key|; the sum of the squares of its terms, p * spread *
  // |key|, where spread^2 = scale^2 (grad_p^2 + delta^2 + |grad_out|^2 |value|^2 / head_dim) is what grad_p - delta may
  // be made of; and of the squares of |key| * (spread + scale), of which a p or a product that underflows loses a part.
  // lse and delta: [samples].
  virtual Doubles grad_query(std::span<const Sample> samples, std::span<const double> query,
                             std::span<const double> grad_out, std::span<const double> lse,
                             std::span<const double> delta) = 0;

  // What grad_key_value() takes for the lse and delta of the rank's queries: those of the run, or others.
  virtual void use_sums_of_run() = 0;
  virtual void use_sums(RowSums sums) = 0;
  // [samples, 2 * head_dim + 4]: of each key its grad_key and grad_value, the sums of the squares of the terms of both,
  // and the same without p, as above; `head` of the samples is a KV head.
  virtual Doubles grad_key_value(std::span<const Sample> samples, std::span<const double> key,
                                 std::span<const double> value) = 0;
};

// Of the tensors of `rank`, in host memory or on that CUDA device. Plan and tensors must outlive the shares.
std::unique_ptr<Shares> make_host_shares(const Plan& plan, int rank, const AttentionTensors& tensors);
std::unique_ptr<Shares> make_cuda_shares(const Plan& plan, int rank, const AttentionTensors& tensors, int device);

}  // namespace orrery
