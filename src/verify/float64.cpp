// The definition in float64, of tensors that lie distributed. Of each sample every rank learns the rows that the
// definition starts from, computes the share of its own keys or queries, and the shares are added up. Only these sums
// travel, so a sample costs each rank as much whatever their number.
#include <cmath>
#include <limits>

#include "orrery/error.hpp"
#include "verify/reference.hpp"

namespace orrery {
namespace {

class Float64Reference : public Reference {
 public:
  Float64Reference(World& world, const Plan& plan, const AttentionTensors& tensors, Shares& shares, bool backward,
                   bool full)
      : world_(world),
        plan_(plan),
        tensors_(tensors),
        shares_(shares),
        backward_(backward),
        full_(full),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)),
        scale_size_(std::abs(plan.problem.effective_scale())) {
    if (!backward_ || !full_) return;
    const auto own_rows = static_cast<std::size_t>(plan.problem.batch * plan.problem.heads * own_tokens());
    sums_ = {Doubles(own_rows), Doubles(own_rows)};
  }

  bool collective() const override { return true; }

  RowReferences rows(std::span<const Sample> samples) override {
    const Doubles query = everywhere(samples, tensors_.query);
    RowReferences rows = softmax(samples, query);
    if (backward_) add_grad_query(samples, query, rows);
    return rows;
  }

  KeyReferences keys(std::span<const Sample> samples) override {
    if (!ready_) {
      if (full_) {
        shares_.use_sums(std::move(sums_));
      } else {
        shares_.use_sums_of_run();
      }
      ready_ = true;
    }
    const Doubles key = everywhere(samples, tensors_.key), value = everywhere(samples, tensors_.value);
    Doubles sums = shares_.grad_key_value(samples, key, value);
    world_.all_reduce(sums, Reduction::sum);
    KeyReferences keys;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto both = std::span(sums).subspan(i * grad_key_value_width(dim_), grad_key_value_width(dim_));
      append(keys.grad_key, both.first(dim_));
      append(keys.grad_value, both.subspan(dim_, dim_));
      const auto sizes = both.subspan(2 * dim_);
      keys.grad_key_terms.push_back({std::sqrt(sizes[0]), std::sqrt(sizes[2])});
      keys.grad_value_terms.push_back({std::sqrt(sizes[1]), std::sqrt(sizes[3])});
    }
    return keys;
  }

 private:
  std::int64_t own_tokens() const { return plan_.layout.tokens(world_.rank()); }

  static void append(Doubles& into, std::span<const double> row) { into.insert(into.end(), row.begin(), row.end()); }

  // The samples' rows of a tensor, on every rank.
  Doubles everywhere(std::span<const Sample> samples, const TensorView& tensor) {
    std::vector<OwnRow> own;
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto [rank, index] = plan_.layout.owner(samples[i].position);
      if (rank != world_.rank()) continue;
      own.push_back({samples[i].batch, index, samples[i].head});
      at.push_back(i * dim_);
    }
    const TensorView* const from = &tensor;
    const Doubles mine = shares_.load(own, {&from, 1});
    Doubles rows(samples.size() * dim_, 0.0);
    for (std::size_t i = 0; i < at.size(); ++i) {
      for (std::size_t c = 0; c < dim_; ++c) rows[at[i] + c] = mine[i * dim_ + c];
    }
    world_.all_reduce(rows, Reduction::sum);
    return rows;
  }

  RowReferences softmax(std::span<const Sample> samples, std::span<const double> query) {
    const std::size_t width = softmax_width(dim_);
    Doubles shares = shares_.softmax(samples, query);
    Doubles maxima;
    for (std::size_t i = 0; i < samples.size(); ++i) maxima.push_back(shares[i * width + dim_]);
    world_.all_reduce(maxima, Reduction::max);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto share = std::span(shares).subspan(i * width, width);
      // A rank without keys for the row has a maximum of -inf, and zeros.
      const double factor = share[dim_ + 1] == 0 ? 0 : std::exp(share[dim_] - maxima[i]);
      for (std::size_t c = 0; c < width; ++c) share[c] *= c == dim_ + 2 ? factor * factor : factor;
      share[dim_] = 0;
    }
    world_.all_reduce(shares, Reduction::sum);
    RowReferences rows;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto share = std::span(shares).subspan(i * width, width);
      const double sum = share[dim_ + 1], part = sum > 0 ? 1 / sum : 0;
      double squares = 0;
      for (std::size_t c = 0; c < dim_; ++c) {
        rows.out.push_back(share[c] * part);
        squares += query[i * dim_ + c] * query[i * dim_ + c];
      }
      rows.lse.push_back(sum > 0 ? maxima[i] + std::log(sum) : -std::numeric_limits<double>::infinity());
      rows.out_terms.push_back({std::sqrt(share[dim_ + 2]) * part});
      rows.score_sizes.push_back(scale_size_ * std::sqrt(squares) * share[dim_ + 3] * part);
    }
    return rows;
  }

  void add_grad_query(std::span<const Sample> samples, std::span<const double> query, RowReferences& rows) {
    const Doubles grad_out = everywhere(samples, tensors_.grad_out);
    Doubles delta, delta_terms;  // of the sums of out * grad_out
    for (std::size_t i = 0; i < samples.size(); ++i) {
      double sum = 0, squares = 0;
      for (std::size_t c = i * dim_; c < (i + 1) * dim_; ++c) {
        sum += grad_out[c] * rows.out[c];
        squares += grad_out[c] * rows.out[c] * grad_out[c] * rows.out[c];
      }
      delta.push_back(sum);
      delta_terms.push_back(std::sqrt(squares));
    }
    if (full_) keep_sums(samples, rows.lse, delta);
    Doubles sums = shares_.grad_query(samples, query, grad_out, rows.lse, delta);
    world_.all_reduce(sums, Reduction::sum);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto share = std::span(sums).subspan(i * grad_query_width(dim_), grad_query_width(dim_));
      append(rows.grad_query, share.first(dim_));
      // An error of delta is the same for all keys of the row.
      const double together = scale_size_ * delta_terms[i] * share[dim_];
      rows.grad_query_terms.push_back({std::sqrt(share[dim_ + 1] + together * together), std::sqrt(share[dim_ + 2])});
    }
  }

  // Those of this rank's rows.
  void keep_sums(std::span<const Sample> samples, const Doubles& lse, const Doubles& delta) {
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto [rank, index] = plan_.layout.owner(samples[i].position);
      if (rank != world_.rank()) continue;
      const std::int64_t head_row = samples[i].batch * plan_.problem.heads + samples[i].head;
      const auto row = static_cast<std::size_t>(head_row * own_tokens() + index);
      sums_.lse[row] = lse[i];
      sums_.delta[row] = delta[i];
    }
  }

  World& world_;
  const Plan& plan_;
  const AttentionTensors& tensors_;
  Shares& shares_;
  bool backward_, full_, ready_ = false;
  std::size_t dim_;
  double scale_size_;
  RowSums sums_;  // the reference's, of full verification
};

}  // namespace

std::unique_ptr<Reference> make_float64_reference(World& world, const Plan& plan, const AttentionTensors& tensors,
                                                  Shares& shares, bool backward, bool full) {
  return std::make_unique<Float64Reference>(world, plan, tensors, shares, backward, full);
}

}  // namespace orrery
