#include "problem/row_index.hpp"

namespace orrery {

void RowIndex::add(const Span& span) {
  if (span.count <= 0) return;
  spans_.push_back(span);
  first_row_.push_back(rows_);
  rows_ += span.count;
}

std::int64_t RowIndex::rows_before(std::int64_t position) const {
  const auto after =
      std::partition_point(spans_.begin(), spans_.end(), [=](const Span& span) { return span.begin < position; });
  if (after == spans_.begin()) return 0;
  const auto span = static_cast<std::size_t>(after - spans_.begin()) - 1;
  return first_row_[span] + tokens_before(spans_[span], position);
}

}  // namespace orrery
