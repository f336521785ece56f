#include "attention/verify_shares.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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

}  // namespace

std::vector<double> load_row(const TensorView& tensor, std::int64_t batch, std::int64_t token, std::int64_t head) {
  std::vector<double> row(static_cast<std::size_t>(tensor.width));
  for (std::size_t c = 0; c < row.size(); ++c)
    row[c] = load_element(tensor, batch, token, head, static_cast<std::int64_t>(c));
  return row;
}

Shares::Shares(const Plan& plan, int rank, const AttentionTensors& tensors)
    : plan_(plan),
      tensors_(tensors),
      spans_(plan.layout.shard(rank)),
      tokens_(plan.layout.tokens(rank)),
      scale_(plan.problem.effective_scale()) {}

// Calls visit(token) for each of the rank's keys that the query at `position` sees.
template <typename Visit>
void Shares::visit_visible(std::int64_t position, const Visit& visit) const {
  const VisibleKeys visible = plan_.problem.mask.visible(position);
  for (const Range& range : {visible.sinks, visible.keys}) {
    if (range.empty()) continue;
    std::int64_t row = 0;
    for (const Span& s : spans_) {
      const auto before = [&](std::int64_t p) {
        return std::clamp<std::int64_t>((p - s.begin + s.stride - 1) / s.stride, 0, s.count);
      };
      const std::int64_t begin = range.begin <= s.begin ? 0 : before(range.begin);
      const std::int64_t end = range.end <= s.begin ? 0 : before(range.end);
      for (std::int64_t i = begin; i < end; ++i) visit(row + i);
      row += s.count;
    }
  }
}

SoftmaxShare Shares::softmax(const Sample& row, std::span<const double> query) const {
  const int kv_head = row.head / plan_.problem.group();
  std::vector<double> scores;
  visit_visible(row.position, [&](std::int64_t token) {
    scores.push_back(scale_ * dot(query, tensors_.key, row.batch, token, kv_head));
  });
  SoftmaxShare share{-std::numeric_limits<double>::infinity(), 0, std::vector<double>(query.size(), 0.0)};
  for (double s : scores) share.max = std::max(share.max, s);
  std::size_t i = 0;
  visit_visible(row.position, [&](std::int64_t token) {
    const double weight = std::exp(scores[i++] - share.max);
    share.sum += weight;
    for (std::size_t c = 0; c < query.size(); ++c) {
      share.weighted[c] +=
          weight * load_element(tensors_.value, row.batch, token, kv_head, static_cast<std::int64_t>(c));
    }
  });
  return share;
}

void Shares::grad_query(const Sample& row, std::span<const double> query, std::span<const double> grad_out, double lse,
                        double delta, std::span<double> grad_query) const {
  if (std::isinf(lse) && lse < 0) return;
  const int kv_head = row.head / plan_.problem.group();
  visit_visible(row.position, [&](std::int64_t token) {
    const double p = std::exp(scale_ * dot(query, tensors_.key, row.batch, token, kv_head) - lse);
    const double ds = p * (dot(grad_out, tensors_.value, row.batch, token, kv_head) - delta) * scale_;
    for (std::size_t c = 0; c < query.size(); ++c) {
      grad_query[c] += ds * load_element(tensors_.key, row.batch, token, kv_head, static_cast<std::int64_t>(c));
    }
  });
}

std::size_t Shares::row_index(std::int64_t batch, int head, std::int64_t token) const {
  return static_cast<std::size_t>((batch * plan_.problem.heads + head) * tokens_ + token);
}

Shares::RowSums Shares::row_sums_of_run() const {
  const AttentionProblem& problem = plan_.problem;
  RowSums sums;
  sums.lse.resize(static_cast<std::size_t>(problem.batch * problem.heads * tokens_));
  sums.delta.resize(sums.lse.size());
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    for (int h = 0; h < problem.heads; ++h) {
      for (std::int64_t t = 0; t < tokens_; ++t) {
        sums.lse[row_index(b, h, t)] = load_element(tensors_.lse, b, t, h, 0);
        sums.delta[row_index(b, h, t)] = dot(load_row(tensors_.grad_out, b, t, h), tensors_.out, b, t, h);
      }
    }
  }
  return sums;
}

void Shares::grad_key_value(const Sample& key, std::span<const double> key_row, std::span<const double> value_row,
                            const RowSums& sums, std::span<double> grad_key, std::span<double> grad_value) const {
  const int group = plan_.problem.group();
  std::int64_t token = 0;
  for (const Span& s : spans_) {
    for (std::int64_t i = 0; i < s.count; ++i, ++token) {
      if (!plan_.problem.mask.admits(s.at(i), key.position)) continue;
      for (int h = key.head * group; h < (key.head + 1) * group; ++h) {
        const double lse = sums.lse[row_index(key.batch, h, token)];
        if (std::isinf(lse) && lse < 0) continue;
        const double p = std::exp(scale_ * dot(key_row, tensors_.query, key.batch, token, h) - lse);
        const double ds =
            p * (dot(value_row, tensors_.grad_out, key.batch, token, h) - sums.delta[row_index(key.batch, h, token)]) *
            scale_;
        for (std::size_t c = 0; c < key_row.size(); ++c) {
          const auto column = static_cast<std::int64_t>(c);
          grad_value[c] += p * load_element(tensors_.grad_out, key.batch, token, h, column);
          grad_key[c] += ds * load_element(tensors_.query, key.batch, token, h, column);
        }
      }
    }
  }
}

}  // namespace orrery
