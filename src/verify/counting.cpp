// The closed form of counting inputs (io/counting.hpp). With n keys seen, every probability is 1 / n; what is summed
// over the keys is then a sum of signs over two intervals of positions. dk is 0, as all queries are. dv of a key sums
// 1 / n over the queries that see it, with alternating signs along every head_dim-th position; prefix sums of these,
// which take a pass over the sequence, give it for any interval.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "io/counting.hpp"
#include "verify/reference.hpp"
#include "verify/rows.hpp"

namespace orrery {
namespace {

class CountingReference : public Reference {
 public:
  CountingReference(const AttentionProblem& problem, bool backward) : problem_(problem), backward_(backward) {}

  bool collective() const override { return false; }

  RowReferences rows(std::span<const Sample> samples) override {
    RowReferences rows;
    for (const Sample& s : samples) add_row(s, rows);
    return rows;
  }

  KeyReferences keys(std::span<const Sample> samples) override {
    if (alternating_.empty()) sum_up();
    KeyReferences keys;
    for (const Sample& s : samples) add_key(s, keys);
    return keys;
  }

 private:
  // sum(end) over [0, end), taken over what a query sees.
  template <typename Sum>
  static double over(const VisibleKeys& seen, const Sum& sum) {
    return static_cast<double>(sum(seen.keys.end) - sum(seen.keys.begin) + sum(seen.sinks.end) - sum(seen.sinks.begin));
  }

  static double count(const VisibleKeys& seen) { return static_cast<double>(seen.keys.size() + seen.sinks.size()); }

  void add_row(const Sample& s, RowReferences& rows) const {
    const VisibleKeys seen = problem_.mask.visible(s.position);
    const double n = count(seen), part = n > 0 ? 1 / n : 0;
    const int kv_head = s.head / problem_.group(), dim = problem_.head_dim;
    const std::size_t first = rows.out.size();
    rows.lse.push_back(n > 0 ? std::log(n) : -std::numeric_limits<double>::infinity());
    rows.score_sizes.push_back(0);
    rows.out_terms.push_back({});
    for (int c = 0; c < dim; ++c) {
      const int bit = io::counting_bit(s.batch, kv_head, c);
      rows.out.push_back(part * over(seen, [&](std::int64_t end) { return io::sign_sum(bit, end); }));
    }
    if (!backward_) return;

    // grad_out picks one column of the values, whose mean is that of out.
    const std::int64_t place = s.position + s.head;
    const int column = static_cast<int>(place % dim), bit = io::counting_bit(s.batch, kv_head, column);
    const double sign = place / dim % 2 == 0 ? 1 : -1, mean = rows.out[first + static_cast<std::size_t>(column)];
    const double scale = problem_.effective_scale();
    for (int c = 0; c < dim; ++c) {
      const int other = io::counting_bit(s.batch, kv_head, c);
      const double products = part * over(seen, [&](std::int64_t end) { return io::product_sum(bit, other, end); });
      rows.grad_query.push_back(scale * sign * (products - mean * rows.out[first + static_cast<std::size_t>(c)]));
    }
    // |key|^2 = head_dim, |grad_out| = 1, and grad_p is 1 or -1. See Shares for what they make.
    const double size = std::abs(scale) * std::sqrt(dim), spread = std::sqrt(2 + mean * mean);
    rows.grad_query_terms.push_back(
        n > 0 ? Terms{size * std::hypot(spread / std::sqrt(n), mean), size * std::sqrt(n) * std::hypot(spread, 1)}
              : Terms{});
  }

  void sum_up() {
    const auto tokens = static_cast<std::size_t>(problem_.seq_len), dim = static_cast<std::size_t>(problem_.head_dim);
    alternating_.resize(tokens);
    squares_.resize(tokens);
    for (std::size_t i = 0; i < tokens; ++i) {
      const double n = count(problem_.mask.visible(static_cast<std::int64_t>(i))), part = n > 0 ? 1 / n : 0;
      alternating_[i] = part - (i >= dim ? alternating_[i - dim] : 0);
      squares_[i] = part * part + (i > 0 ? squares_[i - 1] : 0);
    }
  }

  void add_key(const Sample& s, KeyReferences& keys) const {
    const std::int64_t dim = problem_.head_dim;
    const RowIndex whole(std::array{Span{0, problem_.seq_len, 1}});
    Doubles grad_value(static_cast<std::size_t>(dim), 0.0);
    double squares = 0, seen = 0;
    for (const Range& range : rows_seeing(problem_.mask, s.position, whole)) {
      seen += static_cast<double>(range.size());
      squares += at(squares_, range.end - 1) - at(squares_, range.begin - 1);
      // Each of the last head_dim positions ends a run of every head_dim-th, whose signs alternate.
      for (std::int64_t last = range.end - 1; last >= std::max(range.begin, range.end - dim); --last) {
        const std::int64_t steps = (last - range.begin) / dim + 1;  // to the position before the range
        const double sum = at(alternating_, last) - (steps % 2 == 0 ? 1 : -1) * at(alternating_, last - steps * dim);
        for (int head = s.head * problem_.group(); head < (s.head + 1) * problem_.group(); ++head) {
          const std::int64_t place = last + head;
          grad_value[static_cast<std::size_t>(place % dim)] += place / dim % 2 == 0 ? sum : -sum;
        }
      }
    }
    keys.grad_key.insert(keys.grad_key.end(), static_cast<std::size_t>(dim), 0.0);
    keys.grad_key_terms.push_back({});
    keys.grad_value.insert(keys.grad_value.end(), grad_value.begin(), grad_value.end());
    keys.grad_value_terms.push_back({std::sqrt(problem_.group() * squares), std::sqrt(problem_.group() * seen)});
  }

  static double at(const Doubles& sums, std::int64_t position) {
    return position < 0 ? 0 : sums[static_cast<std::size_t>(position)];
  }

  const AttentionProblem& problem_;
  bool backward_;
  // By position: 1 / n less the same of head_dim positions before, and so on; the sum of 1 / n^2 up to there.
  Doubles alternating_, squares_;
};

}  // namespace

std::unique_ptr<Reference> make_counting_reference(const Plan& plan, bool backward) {
  return std::make_unique<CountingReference>(plan.problem, backward);
}

}  // namespace orrery
