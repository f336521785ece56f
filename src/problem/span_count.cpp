// How many pairs a mask admits between two span lists. Over a run of queries inside one piece of the mask, the keys in
// front of a boundary are counted in closed form; what an interval shows is the count at its end less that at its
// begin.
#include <limits>

#include "key_index.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

Wide count_pairs(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  const KeyIndex index(keys);
  Wide count = 0;
  for (const Span& span : queries) {
    visit_runs(mask, span, [&](const MaskPiece& piece, Range run) {
      const Span run_queries{span.at(run.begin), run.size(), span.stride};
      visit_intervals(piece, [&](const Interval& interval) {
        count += index.count_before(interval.end, run_queries) - index.count_before(interval.begin, run_queries);
      });
    });
  }
  return count;
}

}  // namespace

std::int64_t pairs(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  const Wide count = count_pairs(mask, queries, keys);
  if (count > std::numeric_limits<std::int64_t>::max()) {
    refuse("pairs: ", token_count(queries), " queries and ", token_count(keys),
           " keys make more pairs than 63 bits count");
  }
  return static_cast<std::int64_t>(count);
}

Coverage classify(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  const Wide count = count_pairs(mask, queries, keys);
  if (count == 0) return Coverage::empty;
  return count == Wide{token_count(queries)} * token_count(keys) ? Coverage::full : Coverage::partial;
}

}  // namespace orrery
