#include "core/overlap.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <span>

namespace orrery {
namespace {

constexpr int kLimit = 1 << 20;  // of a search, in differences tried

// A difference of indices, low to high, and the bytes that one of it is worth.
struct Term {
  std::int64_t stride = 0, low = 0, high = 0;
  std::int64_t least() const { return stride * low; }
  std::int64_t most() const { return stride * high; }
};

std::int64_t floor_div(std::int64_t a, std::int64_t b) {  // b > 0
  return a / b - (a % b < 0 ? 1 : 0);
}

// Whether the terms, widest first and of positive strides, sum to a value from `low` to `high`.
bool can_sum(std::span<const Term> terms, std::int64_t low, std::int64_t high, int& left) {
  if (terms.empty()) return low <= 0 && 0 <= high;
  std::int64_t least = 0, most = 0;
  for (const Term& t : terms.subspan(1)) {
    least += t.least();
    most += t.most();
  }
  const Term& first = terms.front();
  const std::int64_t begin = std::max(first.low, -floor_div(most - low, first.stride));
  const std::int64_t end = std::min(first.high, floor_div(high - least, first.stride));
  for (std::int64_t d = begin; d <= end; ++d) {
    if (--left < 0) return false;
    if (can_sum(terms.subspan(1), low - d * first.stride, high - d * first.stride, left)) return true;
  }
  return false;
}

struct Loop {
  std::int64_t count = 0, stride = 0;  // in bytes
};

std::int64_t row_bytes(const TensorView& t) {
  return t.width * static_cast<std::int64_t>(size_of(t.dtype));
}

std::array<Loop, 3> loops(const TensorView& t) {
  const auto item = static_cast<std::int64_t>(size_of(t.dtype));
  return {{{t.batch, t.batch_stride * item}, {t.tokens, t.token_stride * item}, {t.heads, t.head_stride * item}}};
}

// From the first byte to behind the last; strides may be negative.
struct Extent {
  std::int64_t begin, end;
};
Extent extent(const TensorView& t) {
  const auto data = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(t.data));
  Extent extent{data, data + row_bytes(t)};
  for (const Loop& loop : loops(t)) {
    (loop.stride < 0 ? extent.begin : extent.end) += (loop.count - 1) * loop.stride;
  }
  return extent;
}

// At most one of each of six loops, widest first, of positive strides.
class Terms {
 public:
  void add(Term term) {
    if (term.stride == 0 || term.low == term.high) return;
    if (term.stride < 0) term = {-term.stride, -term.high, -term.low};
    std::size_t at = count_;
    while (at > 0 && all_[at - 1].stride < term.stride) --at;
    if (at > 0 && all_[at - 1].stride == term.stride) {
      all_[at - 1].low += term.low;
      all_[at - 1].high += term.high;
      return;
    }
    for (std::size_t i = count_++; i > at; --i) all_[i] = all_[i - 1];
    all_[at] = term;
  }
  std::span<Term> all() { return {all_.data(), count_}; }

 private:
  std::array<Term, 6> all_;
  std::size_t count_ = 0;
};

}  // namespace

bool overlap(const TensorView& a, const TensorView& b) {
  if (a.elements() == 0 || b.elements() == 0) return false;
  const Extent of_a = extent(a), of_b = extent(b);
  if (of_a.end <= of_b.begin || of_b.end <= of_a.begin) return false;
  Terms terms;
  for (const Loop& loop : loops(a)) terms.add({loop.stride, 0, loop.count - 1});
  for (const Loop& loop : loops(b)) terms.add({loop.stride, 1 - loop.count, 0});
  // A row of `a` begins `apart` + the sum behind one of `b`; they meet when neither ends before the other begins.
  const std::int64_t apart = reinterpret_cast<std::intptr_t>(a.data) - reinterpret_cast<std::intptr_t>(b.data);
  int left = kLimit;
  return can_sum(terms.all(), 1 - row_bytes(a) - apart, row_bytes(b) - 1 - apart, left);
}

bool overlaps_itself(const TensorView& tensor) {
  if (tensor.elements() == 0) return false;
  Terms terms;
  std::int64_t rows = 1;
  for (const Loop& loop : loops(tensor)) {
    rows *= loop.count;
    terms.add({loop.stride, 0, loop.count - 1});
  }
  std::int64_t places = 1;  // as many as rows, unless strides are 0 or the same
  for (const Term& term : terms.all()) places *= term.high + 1;
  if (places < rows) return true;
  const std::int64_t row = row_bytes(tensor);
  int left = kLimit;
  for (Term& term : terms.all()) term.low = -term.high;
  // Two different rows, told apart first by the index of one term; which of them is the later does not matter.
  for (std::size_t first = 0; first < terms.all().size(); ++first) {
    terms.all()[first].low = 1;
    if (can_sum(terms.all().subspan(first), 1 - row, row - 1, left)) return true;
  }
  return false;
}

}  // namespace orrery
