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

void RowIndex::append_positions(Range rows, std::vector<Span>& into) const {
  rows = {std::max(rows.begin, std::int64_t{0}), std::min(rows.end, rows_)};
  if (rows.empty()) return;
  auto s = static_cast<std::size_t>(std::upper_bound(first_row_.begin(), first_row_.end(), rows.begin) -
                                    first_row_.begin()) -
           1;
  for (; s < spans_.size() && first_row_[s] < rows.end; ++s) {
    const std::int64_t begin = std::max(rows.begin - first_row_[s], std::int64_t{0});
    const std::int64_t end = std::min(rows.end - first_row_[s], spans_[s].count);
    into.push_back({spans_[s].at(begin), end - begin, spans_[s].stride});
  }
}

}  // namespace orrery
