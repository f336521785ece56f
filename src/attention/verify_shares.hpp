// One rank's share of reference rows, in float64: of a query row, the part of its softmax and of its gradient that
// comes from the rank's own keys; of a key row, the part of its gradients that comes from the rank's own queries. They
// are computed where the rank's tensors lie, for several samples at a time.
//
// Rows stand one behind the other in flat vectors: [samples, head_dim] and the like.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "attention/verify_samples.hpp"
#include "orrery/attention.hpp"

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

class Shares {
 public:
  virtual ~Shares() = default;

  // The rows of `tensors`, side by side.
  virtual Doubles load(std::span<const OwnRow> rows, std::span<const TensorView* const> tensors) = 0;

  // Of each query the exp-weighted values over the rank's keys that it sees, [samples, head_dim + 2]: the sum of
  // exp(score - max) * value, max, the sum of exp(score - max).
  virtual Doubles softmax(std::span<const Sample> samples, std::span<const double> query) = 0;
  // [samples, head_dim]. lse and delta: [samples].
  virtual Doubles grad_query(std::span<const Sample> samples, std::span<const double> query,
                             std::span<const double> grad_out, std::span<const double> lse,
                             std::span<const double> delta) = 0;

  // What grad_key_value() takes for the lse and delta of the rank's queries: those of the run, or others.
  virtual void use_sums_of_run() = 0;
  virtual void use_sums(RowSums sums) = 0;
  // [samples, 2, head_dim]: of each key its grad_key and grad_value; `head` of the samples is a KV head.
  virtual Doubles grad_key_value(std::span<const Sample> samples, std::span<const double> key,
                                 std::span<const double> value) = 0;
};

// Of the tensors of `rank`, in host memory or on that CUDA device. Plan and tensors must outlive the shares.
std::unique_ptr<Shares> make_host_shares(const Plan& plan, int rank, const AttentionTensors& tensors);
std::unique_ptr<Shares> make_cuda_shares(const Plan& plan, int rank, const AttentionTensors& tensors, int device);

}  // namespace orrery
