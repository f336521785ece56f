// How many pairs a mask admits between two span lists. Over a run of queries inside one piece of the mask, the keys in
// front of a boundary are counted in closed form; what an interval shows is the count at its end less that at its
// begin.
#include <limits>

#include "key_index.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

// visit(queries, pairs) for each run of queries inside one piece of the mask.
template <typename Visit>
void count_runs(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys, const Visit& visit) {
  const KeyIndex index(keys);
  PieceWalk pieces(mask);
  for (const Span& span : queries) {
    pieces.visit_runs(span, [&](const MaskPiece& piece, Range run) {
      const Span run_queries{span.at(run.begin), run.size(), span.stride};
      Wide count = 0;
      visit_intervals(piece, [&](const Interval& interval) {
        count += index.count_before(interval.end, run_queries) - index.count_before(interval.begin, run_queries);
      });
      visit(run_queries, count);
    });
  }
}

}  // namespace

std::int64_t pairs(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  Wide count = 0;
  count_runs(mask, queries, keys, [&](const Span&, Wide run) { count += run; });
  if (count > std::numeric_limits<std::int64_t>::max()) {
    refuse("pairs: ", token_count(queries), " queries and ", token_count(keys),
           " keys make more pairs than 63 bits count");
  }
  return static_cast<std::int64_t>(count);
}

Coverage classify(const Mask& mask, std::span<const Span> queries, std::span<const Span> keys) {
  const Wide key_count = token_count(keys);
  bool none = true, all = true;
  count_runs(mask, queries, keys, [&](const Span& run, Wide count) {
    none = none && count == 0;
    all = all && count == key_count * run.count;
  });
  return none ? Coverage::empty : all ? Coverage::full : Coverage::partial;
}

}  // namespace orrery
