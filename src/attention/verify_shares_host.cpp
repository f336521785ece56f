#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/verify_rows.hpp"
#include "attention/verify_shares.hpp"
#include "core/element.hpp"

namespace orrery {
namespace {

double dot(std::span<const double> a, const TensorView& tensor, std::int64_t batch, std::int64_t token,
           std::int64_t head) {
  double sum = 0;
  for (std::size_t c = 0; c < a.size(); ++c)
    sum += a[c] * load_element(tensor, batch, token, head, static_cast<std::int64_t>(c));
  return sum;
}

// into += factor * row
void add(std::span<double> into, double factor, const TensorView& tensor, std::int64_t batch, std::int64_t token,
         std::int64_t head) {
  for (std::size_t c = 0; c < into.size(); ++c)
    into[c] += factor * load_element(tensor, batch, token, head, static_cast<std::int64_t>(c));
}

bool sees_nothing(double lse) {
  return std::isinf(lse) && lse < 0;
}

class HostShares : public Shares {
 public:
  HostShares(const Plan& plan, int rank, const AttentionTensors& tensors)
      : plan_(plan),
        tensors_(tensors),
        spans_(plan.layout.shard(rank)),
        tokens_(plan.layout.tokens(rank)),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)),
        scale_(plan.problem.effective_scale()) {}

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
    Doubles shares(samples.size() * (dim_ + 2), 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      softmax_of(samples[i], query.subspan(i * dim_, dim_), std::span(shares).subspan(i * (dim_ + 2), dim_ + 2));
    }
    return shares;
  }

  Doubles grad_query(std::span<const Sample> samples, std::span<const double> query, std::span<const double> grad_out,
                     std::span<const double> lse, std::span<const double> delta) override {
    Doubles sums(samples.size() * dim_, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (sees_nothing(lse[i])) continue;
      const Sample& row = samples[i];
      const int kv_head = row.head / plan_.problem.group();
      const auto q = query.subspan(i * dim_, dim_), g = grad_out.subspan(i * dim_, dim_);
      visit_seen(row.position, [&](std::int64_t token) {
        const double p = std::exp(scale_ * dot(q, tensors_.key, row.batch, token, kv_head) - lse[i]);
        const double ds = p * (dot(g, tensors_.value, row.batch, token, kv_head) - delta[i]) * scale_;
        add(std::span(sums).subspan(i * dim_, dim_), ds, tensors_.key, row.batch, token, kv_head);
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
          const TensorView* grad_out = &tensors_.grad_out;
          const OwnRow row = {b, t, h};
          sums_.lse.push_back(load_element(tensors_.lse, b, t, h, 0));
          sums_.delta.push_back(dot(load({&row, 1}, {&grad_out, 1}), tensors_.out, b, t, h));
        }
      }
    }
  }

  void use_sums(RowSums sums) override { sums_ = std::move(sums); }

  Doubles grad_key_value(std::span<const Sample> samples, std::span<const double> key,
                         std::span<const double> value) override {
    Doubles sums(samples.size() * 2 * dim_, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto both = std::span(sums).subspan(i * 2 * dim_, 2 * dim_);
      grad_key_value_of(samples[i], key.subspan(i * dim_, dim_), value.subspan(i * dim_, dim_), both.first(dim_),
                        both.last(dim_));
    }
    return sums;
  }

 private:
  // Calls visit(token) for each of the rank's keys that the query at `position` sees.
  template <typename Visit>
  void visit_seen(std::int64_t position, const Visit& visit) const {
    for (const Range& range : rows_seen(plan_.problem.mask, position, spans_)) {
      for (std::int64_t token = range.begin; token < range.end; ++token) visit(token);
    }
  }

  // share: [head_dim + 2]
  void softmax_of(const Sample& row, std::span<const double> query, std::span<double> share) const {
    const int kv_head = row.head / plan_.problem.group();
    Doubles scores;
    visit_seen(row.position, [&](std::int64_t token) {
      scores.push_back(scale_ * dot(query, tensors_.key, row.batch, token, kv_head));
    });
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (double s : scores) max = std::max(max, s);
    std::size_t i = 0;
    visit_seen(row.position, [&](std::int64_t token) {
      const double weight = std::exp(scores[i++] - max);
      sum += weight;
      add(share.first(dim_), weight, tensors_.value, row.batch, token, kv_head);
    });
    share[dim_] = max;
    share[dim_ + 1] = sum;
  }

  void grad_key_value_of(const Sample& key, std::span<const double> key_row, std::span<const double> value_row,
                         std::span<double> grad_key, std::span<double> grad_value) const {
    const int group = plan_.problem.group();
    std::int64_t token = 0;
    for (const Span& s : spans_) {
      for (std::int64_t i = 0; i < s.count; ++i, ++token) {
        if (!plan_.problem.mask.admits(s.at(i), key.position)) continue;
        for (int h = key.head * group; h < (key.head + 1) * group; ++h) {
          const auto row = static_cast<std::size_t>((key.batch * plan_.problem.heads + h) * tokens_ + token);
          const double lse = sums_.lse[row];
          if (sees_nothing(lse)) continue;
          const double p = std::exp(scale_ * dot(key_row, tensors_.query, key.batch, token, h) - lse);
          const double ds = p * (dot(value_row, tensors_.grad_out, key.batch, token, h) - sums_.delta[row]) * scale_;
          add(grad_value, p, tensors_.grad_out, key.batch, token, h);
          add(grad_key, ds, tensors_.query, key.batch, token, h);
        }
      }
    }
  }

  const Plan& plan_;
  const AttentionTensors& tensors_;
  std::vector<Span> spans_;
  std::int64_t tokens_;
  std::size_t dim_;
  double scale_;
  RowSums sums_;
};

}  // namespace

std::unique_ptr<Shares> make_host_shares(const Plan& plan, int rank, const AttentionTensors& tensors) {
  return std::make_unique<HostShares>(plan, rank, tensors);
}

}  // namespace orrery
