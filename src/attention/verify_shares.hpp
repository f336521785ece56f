// One rank's share of a reference row, in float64: of a query row, the part of its softmax and of its gradient that
// comes from the rank's own keys; of a key row, the part of its gradients that comes from the rank's own queries.
#pragma once

#include <span>
#include <vector>

#include "attention/verify_samples.hpp"
#include "orrery/attention.hpp"

namespace orrery {

std::vector<double> load_row(const TensorView& tensor, std::int64_t batch, std::int64_t token, std::int64_t head);

// exp-weighted values over some keys: sum of exp(score - max), and of exp(score - max) * value.
struct SoftmaxShare {
  double max, sum;
  std::vector<double> weighted;  // [head_dim]
};

class Shares {
 public:
  Shares(const Plan& plan, int rank, const AttentionTensors& tensors);

  SoftmaxShare softmax(const Sample& row, std::span<const double> query) const;
  // Adds to grad_query [head_dim].
  void grad_query(const Sample& row, std::span<const double> query, std::span<const double> grad_out, double lse,
                  double delta, std::span<double> grad_query) const;

  // lse and delta of this rank's rows, [batch, heads, tokens]: the run's own, or a reference.
  struct RowSums {
    std::vector<double> lse, delta;
  };
  RowSums row_sums_of_run() const;
  std::size_t row_index(std::int64_t batch, int head, std::int64_t token) const;
  // Adds to grad_key and grad_value [head_dim] of a key row; `head` of the sample is a KV head.
  void grad_key_value(const Sample& key, std::span<const double> key_row, std::span<const double> value_row,
                      const RowSums& sums, std::span<double> grad_key, std::span<double> grad_value) const;

 private:
  template <typename Visit>
  void visit_visible(std::int64_t position, const Visit& visit) const;

  const Plan& plan_;
  const AttentionTensors& tensors_;
  std::vector<Span> spans_;
  std::int64_t tokens_;
  double scale_;
};

}  // namespace orrery
