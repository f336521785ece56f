// Compiled once per instruction set (hwy/foreach_target.h): the vector types all kernels share, and exp.

#if defined(ORRERY_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_SIMD_INL_H_
#undef ORRERY_SIMD_INL_H_
#else
#define ORRERY_SIMD_INL_H_
#endif

#include <limits>

#include "hwy/highway.h"
#include "kernels/host/tiles.hpp"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using IntTag = hn::RebindToSigned<FloatTag>;
using FloatVec = hn::Vec<FloatTag>;
using IntVec = hn::Vec<IntTag>;
constexpr int kLanes = HWY_LANES(float);

static_assert(kPanel % kLanes == 0, "a panel is whole vectors");
static_assert(kMaxLanes % kLanes == 0, "padded columns are whole vectors");

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr int vectors_for(int columns) {
  return (columns + kLanes - 1) / kLanes;
}

// e^x to about one unit in the last place for x <= 88; exactly 0 below -87.33 (where the result would be subnormal) and
// for -inf; NaN for NaN. x = n log 2 + r with |r| <= log(2)/2; log 2 is split so that n log 2 is subtracted exactly.
// The polynomial for e^r is the Chebyshev fit of (e^r - 1 - r) / r^2, good to 1e-8 of e^r.
HWY_INLINE FloatVec exp(FloatVec x) {
  const FloatTag df;
  const IntTag di;
  // Adding 1.5 * 2^23 rounds to an integer, left in the low mantissa bits; adding 127 too makes it a biased exponent.
  const auto magic = hn::Set(df, 12582912.0f + 127.0f);
  const auto shifted = hn::MulAdd(x, hn::Set(df, 1.44269504f), magic);
  const auto n = hn::Sub(shifted, magic);
  auto r = hn::NegMulAdd(n, hn::Set(df, 0.693145752f), x);
  r = hn::NegMulAdd(n, hn::Set(df, 1.42860677e-6f), r);
  auto p = hn::MulAdd(hn::Set(df, 1.39262131e-3f), r, hn::Set(df, 8.36320315e-3f));
  p = hn::MulAdd(p, r, hn::Set(df, 4.16665561e-2f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.66665763e-1f));
  p = hn::MulAdd(p, r, hn::Set(df, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f));
  const auto power = hn::BitCast(df, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(df, -87.33f)), hn::Mul(p, power));
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
