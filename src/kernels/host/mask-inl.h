// Which keys of a tile a panel of query rows sees. The extent is the hull of what its rows see; when every row sees all
// of the extent the scores need no mask, which is so for all but the tiles on a mask's edge.

#if defined(ORRERY_MASK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_MASK_INL_H_
#undef ORRERY_MASK_INL_H_
#else
#define ORRERY_MASK_INL_H_
#endif

#include "kernels/host/attend_call.hpp"
#include "kernels/host/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

struct Extent {
  int begin = 0, end = 0;  // keys [begin, end) of the block; empty when no row sees any
  bool full = true;        // every row sees every key of it
  bool empty() const { return begin >= end; }
};

// The extent of keys [from, to) for `vectors` vectors of rows.
HWY_INLINE Extent visible_extent(const PanelRanges& ranges, int vectors, int from, int to) {
  const IntTag di;
  const auto first = hn::Set(di, from), last = hn::Set(di, to), zero = hn::Zero(di);
  auto lowest = last, highest = first, fewest = last;
  for (int i = 0; i < vectors * kLanes; i += kLanes) {
    const auto begin = hn::Max(hn::Load(di, ranges.begin + i), first);
    const auto end = hn::Min(hn::Load(di, ranges.end + i), last);
    const auto sink_begin = hn::Max(hn::Load(di, ranges.sink_begin + i), first);
    const auto sink_end = hn::Min(hn::Load(di, ranges.sink_end + i), last);
    const auto some = hn::Gt(end, begin), some_sink = hn::Gt(sink_end, sink_begin);
    lowest = hn::Min(lowest, hn::Min(hn::IfThenElse(some, begin, last), hn::IfThenElse(some_sink, sink_begin, last)));
    highest = hn::Max(highest, hn::Max(hn::IfThenElse(some, end, first), hn::IfThenElse(some_sink, sink_end, first)));
    const auto count = hn::Add(hn::Max(hn::Sub(end, begin), zero), hn::Max(hn::Sub(sink_end, sink_begin), zero));
    fewest = hn::Min(fewest, count);
  }
  Extent extent;
  extent.begin = hn::GetLane(hn::MinOfLanes(di, lowest));
  extent.end = hn::GetLane(hn::MaxOfLanes(di, highest));
  extent.full = hn::GetLane(hn::MinOfLanes(di, fewest)) >= extent.end - extent.begin;
  return extent;
}

// The ranges of one vector of rows, asked key by key.
class LaneRanges {
 public:
  HWY_INLINE LaneRanges(const PanelRanges& ranges, int first_row)
      : begin_(hn::Load(IntTag(), ranges.begin + first_row)),
        end_(hn::Load(IntTag(), ranges.end + first_row)),
        sink_begin_(hn::Load(IntTag(), ranges.sink_begin + first_row)),
        sink_end_(hn::Load(IntTag(), ranges.sink_end + first_row)) {}

  HWY_INLINE hn::Mask<FloatTag> sees(int key) const {
    const auto k = hn::Set(IntTag(), key);
    const auto main = hn::AndNot(hn::Gt(begin_, k), hn::Gt(end_, k));
    const auto sink = hn::AndNot(hn::Gt(sink_begin_, k), hn::Gt(sink_end_, k));
    return hn::RebindMask(FloatTag(), hn::Or(main, sink));
  }

 private:
  IntVec begin_, end_, sink_begin_, sink_end_;
};

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
