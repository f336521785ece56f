#include "orrery/verify.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "core/element.hpp"
#include "orrery/error.hpp"
#include "verify/compare.hpp"
#include "verify/limits.hpp"
#include "verify/nonfinite.hpp"
#include "verify/reference.hpp"

namespace orrery {

std::vector<std::string_view> Verification::exceeded() const {
  std::vector<std::string_view> names;
  for (const auto& [name, error] : kAggregateErrors) {
    if (!(this->*error <= limits.*error)) names.push_back(name);  // so is a NaN
  }
  return names;
}

std::string Verification::complaint() const {
  std::string text;
  if (wrong > 0) {
    text = concat(wrong, " of ", rows, " rows", keys > 0 ? concat(" and ", keys, " keys") : "", " are wrong; ", worst);
  }
  for (const auto& [name, error] : kAggregateErrors) {
    if (this->*error <= limits.*error) continue;
    text += concat(text.empty() ? "" : "; ", name, " is ", this->*error, ", at most ", limits.*error);
  }
  return text;
}

std::optional<NonfiniteElement> find_nonfinite(const TensorView& tensor) {
  for (std::int64_t b = 0; b < tensor.batch; ++b) {
    for (std::int64_t t = 0; t < tensor.tokens; ++t) {
      for (std::int64_t h = 0; h < tensor.heads; ++h) {
        if (all_finite(tensor, b, t, h)) continue;
        std::int64_t c = 0;
        while (std::isfinite(load_element(tensor, b, t, h, c))) ++c;
        return NonfiniteElement{b, t, h, c, load_element(tensor, b, t, h, c)};
      }
    }
  }
  return std::nullopt;
}

namespace {

// Numbers in flight at once in all ranks that are threads, so that thousands of samples need little memory.
constexpr std::size_t kMostInFlight = std::size_t{1} << 15;
constexpr std::size_t kMostInChunk = 256;

class Verifier {
 public:
  Verifier(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, const VerifyOptions& options)
      : world_(world),
        plan_(plan),
        tensors_(tensors),
        options_(options),
        shares_(options.device.kind == DeviceKind::cuda
                    ? make_cuda_shares(plan, world.rank(), tensors, options.device.index)
                    : make_host_shares(plan, world.rank(), tensors)),
        nonfinite_(world, plan, tensors, *shares_, backward),
        reference_(options.inputs == Recipe::counting ? make_counting_reference(plan, backward)
                                                      : make_float64_reference(world, plan, tensors, *shares_, backward,
                                                                               options.mode == VerifyMode::full)),
        backward_(backward),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)) {}

  Verification run() {
    const AttentionProblem& problem = plan_.problem;
    Verification v;
    v.mode = options_.mode;
    const auto rows = finite(choose_samples(plan_, problem.heads, v.mode, options_.seed), v.nonfinite,
                             [&](const Sample& s) { return nonfinite_.reaches_query(s, backward_); });
    v.rows = static_cast<std::int64_t>(rows.size());
    in_chunks(rows, [&](std::span<const Sample> chunk) { compare_rows(chunk); });
    lse_.combine(world_);
    if (backward_) {
      const auto keys = finite(choose_samples(plan_, problem.kv_heads, v.mode, options_.seed + 1), v.nonfinite,
                               [&](const Sample& s) { return nonfinite_.reaches_key(s); });
      v.keys = static_cast<std::int64_t>(keys.size());
      in_chunks(keys, [&](std::span<const Sample> chunk) { compare_keys(chunk); });
    }
    finish(v);
    return v;
  }

 private:
  template <typename Reached>
  static std::vector<Sample> finite(std::vector<Sample> samples, std::int64_t& nonfinite, const Reached& reached) {
    nonfinite += static_cast<std::int64_t>(std::erase_if(samples, reached));
    return samples;
  }

  bool owns(const Sample& sample) const { return plan_.layout.owner(sample.position).first == world_.rank(); }

  template <typename Visit>
  void in_chunks(std::vector<Sample> samples, const Visit& visit) const {
    if (!reference_->collective()) std::erase_if(samples, [&](const Sample& s) { return !owns(s); });
    const std::size_t chunk =
        std::clamp<std::size_t>(kMostInFlight / static_cast<std::size_t>(world_.world_size()), 16, kMostInChunk);
    for (std::size_t i = 0; i < samples.size(); i += chunk) {
      visit(std::span(samples).subspan(i, std::min(chunk, samples.size() - i)));
    }
  }

  // This rank's rows among the samples: calls visit(index of the sample, the rows of `tensors` side by side).
  template <typename Visit>
  void visit_own(std::span<const Sample> samples, std::span<const TensorView* const> tensors, const Visit& visit) {
    std::vector<OwnRow> own;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto [rank, token] = plan_.layout.owner(samples[i].position);
      if (rank != world_.rank()) continue;
      own.push_back({samples[i].batch, token, samples[i].head});
      index.push_back(i);
    }
    const Doubles rows = shares_->load(own, tensors);
    for (std::size_t i = 0; i < index.size(); ++i) {
      const std::size_t width = rows.size() / index.size();
      visit(index[i], std::span(rows).subspan(i * width, width));
    }
  }

  std::span<const double> row(const Doubles& rows, std::size_t index) const {
    return std::span(rows).subspan(index * dim_, dim_);
  }

  void compare_rows(std::span<const Sample> samples) {
    const RowReferences should = reference_->rows(samples);
    const TensorView* const results[] = {&tensors_.lse, &tensors_.out, &tensors_.grad_query};
    const auto wanted = std::span(results).first(backward_ ? 3 : 2);
    const Dtype dtype = plan_.problem.dtype;
    visit_own(samples, wanted, [&](std::size_t i, std::span<const double> is) {
      const double size = lse_size(std::isinf(should.lse[i]) ? 0 : should.lse[i], should.score_sizes[i]);
      bool right = lse_.add(samples[i], is[0], should.lse[i], should.score_sizes[i], worst_);
      right &= compare_out(samples[i], is.subspan(1, dim_), row(should.out, i), should.out_terms[i], size);
      if (backward_) {
        right &= dq_.add(samples[i], is.subspan(1 + dim_, dim_), row(should.grad_query, i), should.grad_query_terms[i],
                         row_limit(dtype, size), worst_);
      }
      wrong_ += right ? 0 : 1;
    });
  }

  bool compare_out(const Sample& sample, std::span<const double> is, std::span<const double> should, const Terms& terms,
                   double size) {
    const Dtype dtype = plan_.problem.dtype;
    if (options_.inputs == Recipe::normal) return out_.add(sample, is, should, terms, row_limit(dtype, size), worst_);
    // Each element is exact but for the last rounding, so each is judged alone.
    bool right = true;
    for (std::size_t c = 0; c < is.size(); ++c) {
      right &= out_.add(sample, is.subspan(c, 1), should.subspan(c, 1), {}, exact_limit(dtype), worst_);
    }
    return right;
  }

  void compare_keys(std::span<const Sample> samples) {
    const KeyReferences should = reference_->keys(samples);
    const TensorView* const results[] = {&tensors_.grad_key, &tensors_.grad_value};
    const double limit = row_limit(plan_.problem.dtype, lse_.mean_size());
    visit_own(samples, results, [&](std::size_t i, std::span<const double> is) {
      bool right =
          dk_.add(samples[i], is.first(dim_), row(should.grad_key, i), should.grad_key_terms[i], limit, worst_);
      right &= dv_.add(samples[i], is.last(dim_), row(should.grad_value, i), should.grad_value_terms[i], limit, worst_);
      wrong_ += right ? 0 : 1;
    });
  }

  void finish(Verification& v) {
    const auto take = [&](Comparison& c, double AggregateErrors::*l2, double AggregateErrors::*rms) {
      c.combine(world_);
      v.*l2 = c.relative_l2(), v.limits.*l2 = c.relative_l2_limit();
      v.*rms = c.row_rms(), v.limits.*rms = c.row_rms_limit();
    };
    using Errors = AggregateErrors;
    take(out_, &Errors::out_rel_l2, &Errors::out_row_rms);
    take(dq_, &Errors::dq_rel_l2, &Errors::dq_row_rms);
    take(dk_, &Errors::dk_rel_l2, &Errors::dk_row_rms);
    take(dv_, &Errors::dv_rel_l2, &Errors::dv_row_rms);
    v.lse_max_abs = lse_.max_abs(), v.limits.lse_max_abs = lse_.max_abs_limit();
    v.lse_row_rms = lse_.row_rms(), v.limits.lse_row_rms = kLseShare * kLseLimit;
    double wrong = static_cast<double>(wrong_);
    world_.all_reduce({&wrong, 1}, Reduction::sum);
    v.wrong = static_cast<std::int64_t>(wrong);
    if (v.wrong > 0) v.worst = worst_of_all();
  }

  std::string worst_of_all() {
    const std::vector<double> excesses = all_gather(world_, worst_.excess);
    const std::vector<std::string> texts = all_gather(world_, worst_.text);
    return texts[static_cast<std::size_t>(std::max_element(excesses.begin(), excesses.end()) - excesses.begin())];
  }

  World& world_;
  const Plan& plan_;
  const AttentionTensors& tensors_;
  const VerifyOptions& options_;
  std::unique_ptr<Shares> shares_;
  NonfiniteInputs nonfinite_;
  std::unique_ptr<Reference> reference_;
  bool backward_;
  std::size_t dim_;
  LseComparison lse_;
  Comparison out_{"out", plan_.problem.dtype, options_.inputs == Recipe::counting ? 1 : kAggregateShare},
      dq_{"dq", plan_.problem.dtype}, dk_{"dk", plan_.problem.dtype}, dv_{"dv", plan_.problem.dtype};
  std::int64_t wrong_ = 0;  // of this rank's rows
  Worst worst_;
};

}  // namespace

Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward,
                    const VerifyOptions& options) {
  if (options.mode == VerifyMode::none) return {};
  return Verifier(world, plan, tensors, backward, options).run();
}

Verification verify(World& world, const Plan& plan, const AttentionTensors& tensors, bool backward, VerifyMode mode,
                    std::uint64_t seed, Device device) {
  return verify(world, plan, tensors, backward, {mode, seed, device});
}

}  // namespace orrery
