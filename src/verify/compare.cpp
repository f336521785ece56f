#include "verify/compare.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "orrery/error.hpp"
#include "verify/limits.hpp"

namespace orrery {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double norm(std::span<const double> row) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  return std::sqrt(sum);
}

// A NaN is the worst of errors, and no comparison may lose it.
double settled(double error) {
  return error < kInfinity ? error : kInfinity;
}

std::string place(std::string_view name, const Sample& s) {
  return concat(name, " at batch ", s.batch, " position ", s.position, " head ", s.head);
}

// Keeps the row when it is worse than the worst so far.
template <typename Text>
bool judge(double error, double allowed, Worst& worst, const Text& text) {
  if (error <= allowed) return true;
  const double excess = std::max(error / allowed, 1.0);  // allowed may be 0
  if (excess > worst.excess) worst = {excess, text()};
  return false;
}

}  // namespace

bool Comparison::add(const Sample& sample, std::span<const double> result, std::span<const double> reference,
                     const Terms& terms, double limit, Worst& worst) {
  double squares = 0;
  for (std::size_t c = 0; c < result.size(); ++c) squares += (result[c] - reference[c]) * (result[c] - reference[c]);
  const double error = settled(std::sqrt(squares)), size = norm(reference);
  const double lost = underflow_ * std::hypot(terms.factors, std::sqrt(static_cast<double>(result.size())));
  const double allowed = limit * std::hypot(size, terms.size) + lost;
  error_ += error * error;
  size_ += size * size;
  terms_ += terms.size * terms.size;
  allowed_ += allowed * allowed;
  if (error > 0) relative_ += limit * (error / allowed) * limit * (error / allowed);
  limits_ += limit * limit;
  rows_ += 1;
  return judge(error, allowed, worst, [&] {
    return concat(place(name_, sample), ": error ", error, " on a row of size ", size, ", at most ", allowed);
  });
}

void Comparison::combine(World& world) {
  std::array sums = {error_, size_, terms_, allowed_, relative_, limits_, rows_};
  world.all_reduce(sums, Reduction::sum);
  error_ = sums[0], size_ = sums[1], terms_ = sums[2], allowed_ = sums[3], relative_ = sums[4], limits_ = sums[5];
  rows_ = sums[6];
}

// What the L2 error is relative to: the results, or their terms where nothing but rounding is left of the results.
double Comparison::whole() const {
  constexpr double kCancelled = 1e-12;  // of the terms, squared
  return size_ > kCancelled * terms_ ? size_ : terms_;
}

double Comparison::relative_l2() const {
  return error_ == 0 ? 0 : std::sqrt(error_ / whole());
}
double Comparison::relative_l2_limit() const {
  return allowed_ == 0 ? 0 : share_ * std::sqrt(allowed_ / whole());
}
double Comparison::row_rms() const {
  return rows_ == 0 ? 0 : std::sqrt(relative_ / rows_);
}
double Comparison::row_rms_limit() const {
  return rows_ == 0 ? 0 : share_ * std::sqrt(limits_ / rows_);
}

bool LseComparison::add(const Sample& sample, double result, double reference, double score_size, Worst& worst) {
  const auto text = [&] { return concat(place("lse", sample), ": ", result, ", should be ", reference); };
  if (std::isinf(reference)) return judge(result == reference ? 0 : kInfinity, 0, worst, text);
  const double error = settled(std::abs(result - reference)), size = lse_size(reference, score_size);
  max_abs_ = std::max(max_abs_, error);
  max_allowed_ = std::max(max_allowed_, kLseLimit * size);
  relative_ += (error / size) * (error / size);
  sizes_ += size;
  rows_ += 1;
  return judge(error, kLseLimit * size, worst, text);
}

void LseComparison::combine(World& world) {
  std::array largest = {max_abs_, max_allowed_};
  world.all_reduce(largest, Reduction::max);
  max_abs_ = largest[0], max_allowed_ = largest[1];
  std::array sums = {relative_, sizes_, rows_};
  world.all_reduce(sums, Reduction::sum);
  relative_ = sums[0], sizes_ = sums[1], rows_ = sums[2];
}

}  // namespace orrery
