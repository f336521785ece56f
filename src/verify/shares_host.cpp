#include <algorithm>
#include <cmath>
#include <limits>

#include "core/element.hpp"
#include "verify/rows.hpp"
#include "verify/shares.hpp"

namespace orrery {
namespace {

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t c = 0; c < a.size(); ++c) sum += a[c] * b[c];
  return sum;
}

// into += factor * row
void add(std::span<double> into, double factor, std::span<const double> row) {
  for (std::size_t c = 0; c < into.size(); ++c) into[c] += factor * row[c];
}

double squared(double x) {
  return x * x;
}

bool sees_nothing(double lse) {
  return std::isinf(lse) && lse < 0;
}

class HostShares : public Shares {
 public:
  HostShares(const Plan& plan, int rank, const AttentionTensors& tensors)
      : plan_(plan),
        tensors_(tensors),
        shard_(plan.layout.shard(rank)),
        tokens_(plan.layout.tokens(rank)),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)),
        scale_(plan.problem.effective_scale()),
        first_(dim_),
        second_(dim_) {}

  std::vector<std::int64_t> nonfinite(const TensorView& tensor) override {
    std::vector<std::int64_t> rows;
    for (std::int64_t b = 0; b < tensor.batch; ++b) {
      for (std::int64_t h = 0; h < tensor.heads; ++h) {
        for (std::int64_t t = 0; t < tensor.tokens; ++t) {
          if (!all_finite(tensor, b, t, h)) rows.push_back((b * tensor.heads + h) * tensor.tokens + t);
        }
      }
    }
    return rows;
  }

  Doubles load(std::span<const OwnRow> rows, std::span<const TensorView* const> tensors) override {
    Doubles values;
    for (const OwnRow& row : rows) {
      for (const TensorView* tensor : tensors) {
        for (std::int64_t c = 0; c < tensor->width; ++c) {
          values.push_back(load_element(*tensor, row.batch, row.token, row.head, c));
        }
      }
    }
    return values;
  }

  Doubles softmax(std::span<const Sample> samples, std::span<const double> query) override {
    const std::size_t width = softmax_width(dim_);
    Doubles shares(samples.size() * width, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      softmax_of(samples[i], query.subspan(i * dim_, dim_), std::span(shares).subspan(i * width, width));
    }
    return shares;
  }

  Doubles grad_query(std::span<const Sample> samples, std::span<const double> query, std::span<const double> grad_out,
                     std::span<const double> lse, std::span<const double> delta) override {
    const std::size_t width = grad_query_width(dim_);
    Doubles sums(samples.size() * width, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (sees_nothing(lse[i])) continue;
      const Sample& row = samples[i];
      const int kv_head = row.head / plan_.problem.group();
      const auto q = query.subspan(i * dim_, dim_), g = grad_out.subspan(i * dim_, dim_);
      const auto share = std::span(sums).subspan(i * width, width);
      visit_seen(row.position, [&](std::int64_t token) {
        const auto key = load(tensors_.key, row.batch, token, kv_head, first_);
        const auto value = load(tensors_.value, row.batch, token, kv_head, second_);
        const double p = std::exp(scale_ * dot(q, key) - lse[i]), grad_p = dot(g, value),
                     length = std::sqrt(dot(key, key));
        add(share.first(dim_), p * (grad_p - delta[i]) * scale_, key);
        const double spread = squares_of_spread(grad_p, delta[i], dot(g, g) * dot(value, value));
        share[dim_] += p * length;
        share[dim_ + 1] += squared(p * length) * spread;
        share[dim_ + 2] += squared(length) * (spread + squared(scale_));
      });
    }
    return sums;
  }

  void use_sums_of_run() override {
    const AttentionProblem& problem = plan_.problem;
    sums_ = {};
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      for (int h = 0; h < problem.heads; ++h) {
        for (std::int64_t t = 0; t < tokens_; ++t) {
          const auto out = load(tensors_.out, b, t, h, first_), grad_out = load(tensors_.grad_out, b, t, h, second_);
          sums_.lse.push_back(load_element(tensors_.lse, b, t, h, 0));
          sums_.delta.push_back(dot(out, grad_out));
        }
      }
    }
  }

  void use_sums(RowSums sums) override { sums_ = std::move(sums); }

  Doubles grad_key_value(std::span<const Sample> samples, std::span<const double> key,
                         std::span<const double> value) override {
    const std::size_t width = grad_key_value_width(dim_);
    Doubles sums(samples.size() * width, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      grad_key_value_of(samples[i], key.subspan(i * dim_, dim_), value.subspan(i * dim_, dim_),
                        std::span(sums).subspan(i * width, width));
    }
    return sums;
  }

 private:
  // The row as doubles, in `room` of head_dim.
  static std::span<const double> load(const TensorView& tensor, std::int64_t batch, std::int64_t token,
                                      std::int64_t head, Doubles& room) {
    load_row(tensor, batch, token, head, room);
    return room;
  }

  // Calls visit(token) for each of the rank's keys that the query at `position` sees.
  template <typename Visit>
  void visit_seen(std::int64_t position, const Visit& visit) const {
    for (const Range& range : rows_seen(plan_.problem.mask, position, shard_)) {
      for (std::int64_t token = range.begin; token < range.end; ++token) visit(token);
    }
  }

  // `lengths`: |grad_out|^2 |value|^2
  double squares_of_spread(double grad_p, double delta, double lengths) const {
    return squared(scale_) * (squared(grad_p) + squared(delta) + lengths / static_cast<double>(dim_));
  }

  // share: [head_dim + 4]
  void softmax_of(const Sample& row, std::span<const double> query, std::span<double> share) {
    const int kv_head = row.head / plan_.problem.group();
    Doubles scores, lengths;
    visit_seen(row.position, [&](std::int64_t token) {
      const auto key = load(tensors_.key, row.batch, token, kv_head, first_);
      scores.push_back(scale_ * dot(query, key));
      lengths.push_back(std::sqrt(dot(key, key)));
    });
    double max = -std::numeric_limits<double>::infinity();
    for (double s : scores) max = std::max(max, s);
    share[dim_] = max;
    std::size_t i = 0;
    visit_seen(row.position, [&](std::int64_t token) {
      const auto value = load(tensors_.value, row.batch, token, kv_head, second_);
      const double weight = std::exp(scores[i] - max);
      add(share.first(dim_), weight, value);
      share[dim_ + 1] += weight;
      share[dim_ + 2] += weight * weight * dot(value, value);
      share[dim_ + 3] += weight * lengths[i++];
    });
  }

  // share: [2 * head_dim + 4]
  void grad_key_value_of(const Sample& key, std::span<const double> key_row, std::span<const double> value_row,
                         std::span<double> share) {
    const AttentionProblem& problem = plan_.problem;
    for (const Range& range : rows_seeing(problem.mask, key.position, shard_)) {
      for (std::int64_t token = range.begin; token < range.end; ++token) {
        for (int h = key.head * problem.group(); h < (key.head + 1) * problem.group(); ++h) {
          const auto row = static_cast<std::size_t>((key.batch * problem.heads + h) * tokens_ + token);
          const double lse = sums_.lse[row], delta = sums_.delta[row];
          if (sees_nothing(lse)) continue;
          const auto query = load(tensors_.query, key.batch, token, h, first_);
          const auto grad_out = load(tensors_.grad_out, key.batch, token, h, second_);
          const double p = std::exp(scale_ * dot(key_row, query) - lse), grad_p = dot(value_row, grad_out);
          add(share.first(dim_), p * (grad_p - delta) * scale_, query);
          add(share.subspan(dim_, dim_), p, grad_out);
          const double outs = dot(grad_out, grad_out), queries = dot(query, query);
          const double spread = squares_of_spread(grad_p, delta, dot(value_row, value_row) * outs);
          share[2 * dim_] += squared(p) * spread * queries;
          share[2 * dim_ + 1] += squared(p) * outs;
          share[2 * dim_ + 2] += queries * (spread + squared(scale_));
          share[2 * dim_ + 3] += outs;
        }
      }
    }
  }

  const Plan& plan_;
  const AttentionTensors& tensors_;
  RowIndex shard_;
  std::int64_t tokens_;
  std::size_t dim_;
  double scale_;
  RowSums sums_;
  Doubles first_, second_;  // [head_dim], a row each
};

}  // namespace

std::unique_ptr<Shares> make_host_shares(const Plan& plan, int rank, const AttentionTensors& tensors) {
  return std::make_unique<HostShares>(plan, rank, tensors);
}

}  // namespace orrery
