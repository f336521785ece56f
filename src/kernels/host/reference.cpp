#include "kernels/host/reference.hpp"

#include <cmath>
#include <limits>

#include "core/element.hpp"

namespace orrery::kernels::reference {
namespace {

// The scaled scores of one query row against every key row it sees, and -inf for the others.
std::vector<double> row_scores(const TensorView& query, const TensorView& key, double scale, const Admits& admits,
                               std::int64_t b, std::int64_t h, std::int64_t i) {
  const std::int64_t kv_head = h / (query.heads / key.heads);
  std::vector<double> scores(static_cast<std::size_t>(key.tokens), -std::numeric_limits<double>::infinity());
  for (std::int64_t j = 0; j < key.tokens; ++j) {
    if (!admits(i, j)) continue;
    double sum = 0;
    for (std::int64_t c = 0; c < query.width; ++c)
      sum += load_element(query, b, i, h, c) * load_element(key, b, j, kv_head, c);
    scores[j] = scale * sum;
  }
  return scores;
}

}  // namespace

Forward forward(const TensorView& query, const TensorView& key, const TensorView& value, double scale,
                const Admits& admits) {
  Forward result;
  result.out.assign(static_cast<std::size_t>(query.elements()), 0.0);
  result.lse.assign(static_cast<std::size_t>(query.batch * query.heads * query.tokens),
                    -std::numeric_limits<double>::infinity());
  for (std::int64_t b = 0; b < query.batch; ++b) {
    for (std::int64_t h = 0; h < query.heads; ++h) {
      const std::int64_t kv_head = h / (query.heads / key.heads);
      for (std::int64_t i = 0; i < query.tokens; ++i) {
        const std::vector<double> scores = row_scores(query, key, scale, admits, b, h, i);
        double largest = -std::numeric_limits<double>::infinity();
        for (std::int64_t j = 0; j < key.tokens; ++j) {
          if (admits(i, j)) largest = std::max(largest, scores[j]);
        }
        double sum = 0;
        double* out = result.out.data() + ((b * query.tokens + i) * query.heads + h) * query.width;
        for (std::int64_t j = 0; j < key.tokens; ++j) {
          if (!admits(i, j)) continue;
          const double p = std::exp(scores[j] - largest);
          sum += p;
          for (std::int64_t c = 0; c < query.width; ++c) out[c] += p * load_element(value, b, j, kv_head, c);
        }
        if (sum == 0) continue;
        for (std::int64_t c = 0; c < query.width; ++c) out[c] /= sum;
        result.lse[(b * query.heads + h) * query.tokens + i] = largest + std::log(sum);
      }
    }
  }
  return result;
}

Backward backward(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& grad_out,
                  const Forward& result, double scale, const Admits& admits) {
  Backward grad;
  grad.grad_query.assign(static_cast<std::size_t>(query.elements()), 0.0);
  grad.grad_key.assign(static_cast<std::size_t>(key.elements()), 0.0);
  grad.grad_value.assign(static_cast<std::size_t>(key.elements()), 0.0);
  for (std::int64_t b = 0; b < query.batch; ++b) {
    for (std::int64_t h = 0; h < query.heads; ++h) {
      const std::int64_t kv_head = h / (query.heads / key.heads);
      for (std::int64_t i = 0; i < query.tokens; ++i) {
        const std::vector<double> scores = row_scores(query, key, scale, admits, b, h, i);
        const std::int64_t query_at = ((b * query.tokens + i) * query.heads + h) * query.width;
        const double lse = result.lse[(b * query.heads + h) * query.tokens + i];
        double delta = 0;
        for (std::int64_t c = 0; c < query.width; ++c)
          delta += result.out[query_at + c] * load_element(grad_out, b, i, h, c);
        for (std::int64_t j = 0; j < key.tokens; ++j) {
          if (!admits(i, j)) continue;
          const std::int64_t key_at = ((b * key.tokens + j) * key.heads + kv_head) * key.width;
          const double p = std::exp(scores[j] - lse);
          double grad_p = 0;
          for (std::int64_t c = 0; c < query.width; ++c)
            grad_p += load_element(grad_out, b, i, h, c) * load_element(value, b, j, kv_head, c);
          const double grad_score = p * (grad_p - delta) * scale;
          for (std::int64_t c = 0; c < query.width; ++c) {
            grad.grad_query[query_at + c] += grad_score * load_element(key, b, j, kv_head, c);
            grad.grad_key[key_at + c] += grad_score * load_element(query, b, i, h, c);
            grad.grad_value[key_at + c] += p * load_element(grad_out, b, i, h, c);
          }
        }
      }
    }
  }
  return grad;
}

}  // namespace orrery::kernels::reference
