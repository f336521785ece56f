// Results against their reference: which rows are wrong, and the errors of all rows together. A rank compares the rows
// that it owns; combine() then adds up those of all ranks.
//
// An error is relative to the size of what was summed up to its row: where terms cancel, as the dq of a query with one
// key does exactly, rounding is a part of the terms and not of their sum.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "orrery/world.hpp"
#include "verify/limits.hpp"
#include "verify/samples.hpp"

namespace orrery {

// The worst row that this rank has seen.
struct Worst {
  double excess = 0;  // its error in limits
  std::string text;
};

// What was summed up to a row: the root sum of squares of the terms; and of their factors without the probabilities,
// of which each that underflows loses a part.
struct Terms {
  double size = 0, factors = 0;
};

class Comparison {
 public:
  // Of results of that dtype. The errors of all rows together may be `share` of what those of single rows may be.
  Comparison(std::string_view name, Dtype dtype, double share = kAggregateShare)
      : name_(name), underflow_(underflow(dtype)), share_(share) {}

  // `limit` is relative to the sizes of the row and of its terms together. False when the row is wrong.
  bool add(const Sample& sample, std::span<const double> result, std::span<const double> reference, const Terms& terms,
           double limit, Worst& worst);

  void combine(World& world);  // collective

  // Of all rows; after combine().
  double relative_l2() const;
  double relative_l2_limit() const;
  double row_rms() const;
  double row_rms_limit() const;

 private:
  double whole() const;

  std::string_view name_;
  double underflow_, share_;
  // Sums of squares.
  double error_ = 0, size_ = 0, terms_ = 0, allowed_ = 0, relative_ = 0, limits_ = 0;
  double rows_ = 0;
};

class LseComparison {
 public:
  bool add(const Sample& sample, double result, double reference, double score_size, Worst& worst);
  void combine(World& world);  // collective

  double max_abs() const { return max_abs_; }
  double max_abs_limit() const { return max_allowed_; }
  double row_rms() const { return rows_ == 0 ? 0 : std::sqrt(relative_ / rows_); }
  // The mean size over all rows, of those that see a key.
  double mean_size() const { return rows_ == 0 ? 1 : sizes_ / rows_; }

 private:
  double max_abs_ = 0, max_allowed_ = 0, relative_ = 0, sizes_ = 0, rows_ = 0;
};

}  // namespace orrery
