#include "orrery/verify.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "attention/verify_shares.hpp"
#include "orrery/error.hpp"

namespace orrery {

namespace {

using Rows = std::vector<std::vector<double>>;  // one a sample

constexpr std::size_t kChunk = 256;  // samples in flight at once, so that full verification needs little memory

// A row is wrong when its error exceeds this part of a typical row; about four roundings of the dtype.
double row_tolerance(Dtype dtype) {
  return dtype == Dtype::fp32 ? 1e-4 : dtype == Dtype::bf16 ? 2e-2 : 4e-3;
}
// Inputs are exact whatever their dtype and lse is fp32, so its error follows the size of the scores.
double lse_tolerance(double lse) {
  return 5e-5 * (1 + std::abs(lse));
}

double norm(std::span<const double> row) {
  double sum = 0;
  for (double x : row) sum += x * x;
  return std::sqrt(sum);
}

// One kind of result compared with its reference: the relative L2 error over all rows, and the rows that are wrong.
class Comparison {
 public:
  Comparison(std::string name, double tolerance) : name_(std::move(name)), tolerance_(tolerance) {}

  // `terms` is the size of what was summed up to the row. Where the terms cancel, as the dq of a query with one key
  // does exactly, rounding is a part of them and not of their sum.
  void add(const Sample& sample, std::span<const double> result, std::span<const double> reference, double terms = 0) {
    double error = 0;
    for (std::size_t c = 0; c < result.size(); ++c) {
      error += (result[c] - reference[c]) * (result[c] - reference[c]);
    }
    const double size = norm(reference);
    rows_.push_back({sample, std::sqrt(error), size, terms});
    error_ += error;
    size_ += size * size;
    terms_ += terms * terms;
  }

  double relative_l2() const {
    constexpr double kCancelled = 1e-12;  // of the terms, squared: nothing is left but rounding
    return error_ == 0 ? 0 : std::sqrt(error_ / (size_ > kCancelled * terms_ ? size_ : terms_));
  }

  void judge(Verification& verification) const {
    if (rows_.empty()) return;
    const double typical = std::sqrt(size_ / static_cast<double>(rows_.size()));
    double worst = 0;
    for (const Row& r : rows_) {
      const double error = r.error / std::max(r.size + typical + 0.1 * r.terms, 1e-30);
      if (error <= tolerance_) continue;  // a NaN is not
      ++verification.wrong;
      if (!(error <= worst)) {
        worst = error;
        verification.worst = concat(name_, " at batch ", r.sample.batch, " position ", r.sample.position, " head ",
                                    r.sample.head, ": error ", r.error, " on a row of size ", r.size);
      }
    }
  }

 private:
  struct Row {
    Sample sample;
    double error, size, terms;
  };
  std::string name_;
  double tolerance_;
  std::vector<Row> rows_;
  double error_ = 0, size_ = 0, terms_ = 0;
};

class Verifier {
 public:
  Verifier(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, VerifyMode mode,
           Device device)
      : world_(world),
        plan_(plan),
        tensors_(tensors),
        shares_(device.kind == DeviceKind::cuda ? make_cuda_shares(plan, world.rank(), tensors, device.index)
                                                : make_host_shares(plan, world.rank(), tensors)),
        backward_(backward),
        mode_(mode),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)) {}

  Verification run(std::uint64_t seed) {
    Verification v;
    v.mode = mode_;
    if (mode_ == VerifyMode::none) return v;
    if (backward_ && mode_ == VerifyMode::full) {
      const auto own_rows = static_cast<std::size_t>(plan_.problem.batch * plan_.problem.heads * own_tokens());
      sums_ = {Doubles(own_rows), Doubles(own_rows)};
    }
    const auto rows = choose_samples(plan_, plan_.problem.heads, mode_, seed);
    v.rows = static_cast<std::int64_t>(rows.size());
    in_chunks(rows, [&](std::span<const Sample> chunk) { compare_rows(chunk, v); });
    if (backward_) {
      if (mode_ == VerifyMode::full) {
        shares_->use_sums(std::move(sums_));
      } else {
        shares_->use_sums_of_run();
      }
      in_chunks(choose_samples(plan_, plan_.problem.kv_heads, mode_, seed + 1),
                [&](std::span<const Sample> chunk) { compare_keys(chunk); });
    }
    v.out_rel_l2 = out_.relative_l2();
    v.dq_rel_l2 = dq_.relative_l2();
    v.dk_rel_l2 = dk_.relative_l2();
    v.dv_rel_l2 = dv_.relative_l2();
    for (const Comparison* c : {&out_, &dq_, &dk_, &dv_}) c->judge(v);
    return v;
  }

 private:
  template <typename Visit>
  static void in_chunks(const std::vector<Sample>& samples, const Visit& visit) {
    for (std::size_t i = 0; i < samples.size(); i += kChunk) {
      visit(std::span(samples).subspan(i, std::min(kChunk, samples.size() - i)));
    }
  }

  Rows gather(const std::vector<double>& mine, std::size_t width) {
    Rows all;
    for (const auto& bytes : world_.all_gather(std::as_bytes(std::span(mine)))) {
      ORRERY_CHECK(bytes.size() % (width * sizeof(double)) == 0, bytes.size(), " bytes in rows of ", width);
      auto& rows = all.emplace_back(bytes.size() / sizeof(double));
      if (!bytes.empty()) std::memcpy(rows.data(), bytes.data(), bytes.size());
    }
    return all;
  }

  // The rows of `tensors` at the samples, side by side, from whichever rank owns them.
  Rows rows_of(std::span<const Sample> samples, const std::vector<const TensorView*>& tensors) {
    std::size_t width = 0;
    for (const TensorView* t : tensors) width += static_cast<std::size_t>(t->width);
    std::vector<OwnRow> own;
    for (const Sample& s : samples) {
      const auto [rank, index] = plan_.layout.owner(s.position);
      if (rank == world_.rank()) own.push_back({s.batch, index, s.head});
    }
    const Doubles mine = shares_->load(own, tensors);
    const Rows by_rank = gather(mine, width);
    std::vector<std::size_t> used(by_rank.size(), 0);
    Rows rows;
    for (const Sample& s : samples) {
      const auto rank = static_cast<std::size_t>(plan_.layout.owner(s.position).first);
      ORRERY_CHECK(used[rank] + width <= by_rank[rank].size(), "rank ", rank, " gave too few rows");
      const double* begin = by_rank[rank].data() + used[rank];
      rows.emplace_back(begin, begin + width);
      used[rank] += width;
    }
    return rows;
  }

  // The sum over all ranks, in their order, of `width` values a sample.
  Rows sum(std::span<const Sample> samples, const std::vector<double>& mine, std::size_t width) {
    Rows total(samples.size(), std::vector<double>(width, 0.0));
    for (const auto& rank : gather(mine, width)) {
      ORRERY_CHECK(rank.size() == samples.size() * width, "shares of ", rank.size(), " values");
      for (std::size_t i = 0; i < rank.size(); ++i) total[i / width][i % width] += rank[i];
    }
    return total;
  }

  std::vector<double> part(const std::vector<double>& row, std::size_t index) const {
    const auto begin = row.begin() + static_cast<std::ptrdiff_t>(index * dim_);
    return {begin, begin + static_cast<std::ptrdiff_t>(dim_)};
  }

  // That part of every row, side by side.
  Doubles parts(const Rows& rows, std::size_t index) const {
    Doubles all;
    for (const auto& row : rows) {
      const Doubles one = part(row, index);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }

  std::int64_t own_tokens() const { return plan_.layout.tokens(world_.rank()); }
  double scale_size() const { return std::abs(plan_.problem.effective_scale()); }

  // The reference out and lse of each sample; lse is the last value.
  Rows reference_rows(std::span<const Sample> samples, const Rows& given) {
    const std::size_t width = dim_ + 2;
    const Rows by_rank = gather(shares_->softmax(samples, parts(given, 0)), width);
    Rows reference;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      double max = -std::numeric_limits<double>::infinity(), sum = 0;
      for (const auto& r : by_rank) max = std::max(max, r[i * width + dim_]);
      std::vector<double> out(dim_ + 1, 0.0);
      for (const auto& r : by_rank) {
        if (r[i * width + dim_ + 1] == 0) continue;
        const double weight = std::exp(r[i * width + dim_] - max);
        sum += weight * r[i * width + dim_ + 1];
        for (std::size_t c = 0; c < dim_; ++c) out[c] += weight * r[i * width + c];
      }
      for (std::size_t c = 0; c < dim_ && sum > 0; ++c) out[c] /= sum;
      out[dim_] = sum > 0 ? max + std::log(sum) : -std::numeric_limits<double>::infinity();
      reference.push_back(std::move(out));
    }
    return reference;
  }

  void compare_rows(std::span<const Sample> samples, Verification& v) {
    std::vector<const TensorView*> wanted = {&tensors_.query, &tensors_.out};
    if (backward_) wanted.insert(wanted.end(), {&tensors_.grad_out, &tensors_.grad_query});
    wanted.push_back(&tensors_.lse);
    const Rows given = rows_of(samples, wanted);
    const Rows reference = reference_rows(samples, given);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      out_.add(samples[i], part(given[i], 1), part(reference[i], 0));
      compare_lse(samples[i], given[i].back(), reference[i].back(), v);
    }
    if (backward_) compare_grad_query(samples, given, reference);
  }

  static void compare_lse(const Sample& s, double lse, double reference, Verification& v) {
    if (lse == reference) return;  // -inf too
    const double error = std::abs(lse - reference);
    if (!(error <= v.lse_max_abs)) v.lse_max_abs = error;
    if (error <= lse_tolerance(reference)) return;
    ++v.wrong;
    v.worst = concat("lse at batch ", s.batch, " position ", s.position, " head ", s.head, ": ", lse, ", should be ",
                     reference);
  }

  void compare_grad_query(std::span<const Sample> samples, const Rows& given, const Rows& reference) {
    Doubles lse, delta;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto grad_out = part(given[i], 2);
      lse.push_back(reference[i].back());
      delta.push_back(0);
      for (std::size_t c = 0; c < dim_; ++c) delta[i] += grad_out[c] * reference[i][c];
    }
    if (mode_ == VerifyMode::full) keep_sums(samples, lse, delta);
    const Doubles mine = shares_->grad_query(samples, parts(given, 0), parts(given, 2), lse, delta);
    const Rows grad_query = sum(samples, mine, dim_);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const double terms =
          scale_size() * norm(part(given[i], 0)) * norm(part(given[i], 2)) * norm(part(reference[i], 0));
      dq_.add(samples[i], part(given[i], 3), grad_query[i], terms);
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

  void compare_keys(std::span<const Sample> samples) {
    const Rows given = rows_of(samples, {&tensors_.key, &tensors_.value, &tensors_.grad_key, &tensors_.grad_value});
    const Doubles mine = shares_->grad_key_value(samples, parts(given, 0), parts(given, 1));
    const Rows reference = sum(samples, mine, 2 * dim_);
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto grad_value = part(reference[i], 1);
      dk_.add(samples[i], part(given[i], 2), part(reference[i], 0),
              scale_size() * norm(part(given[i], 0)) * norm(part(given[i], 1)) * norm(grad_value));
      dv_.add(samples[i], part(given[i], 3), grad_value);
    }
  }

  World& world_;
  const Plan& plan_;
  const AttentionTensors& tensors_;
  std::unique_ptr<Shares> shares_;
  bool backward_;
  VerifyMode mode_;
  std::size_t dim_;
  RowSums sums_;  // the reference's, of full verification
  Comparison out_{"out", row_tolerance(plan_.problem.dtype)}, dq_{"dq", 2 * row_tolerance(plan_.problem.dtype)},
      dk_{"dk", 2 * row_tolerance(plan_.problem.dtype)}, dv_{"dv", 2 * row_tolerance(plan_.problem.dtype)};
};

}  // namespace

Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, VerifyMode mode,
                    std::uint64_t seed, Device device) {
  return Verifier(world, plan, tensors, backward, mode, device).run(seed);
}

}  // namespace orrery
