// Moving rows between the caller's tensors (any dtype, any stride) and the kernels' fp32 tiles, which are aligned and
// whose padding is zero. Conversion happens here and nowhere else.

#if defined(ORRERY_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_PACK_INL_H_
#undef ORRERY_PACK_INL_H_
#else
#define ORRERY_PACK_INL_H_
#endif

#include <cstring>

#include "kernels/host/attend_call.hpp"
#include "kernels/host/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using HalfTag = hn::Rebind<std::uint16_t, FloatTag>;
using UintTag = hn::RebindToUnsigned<FloatTag>;
using UintVec = hn::Vec<UintTag>;

// The conversions of core/float_formats.hpp, a vector at a time and bit for bit the same.
HWY_INLINE FloatVec widen_bf16(UintVec bits) {
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(bits));
}

HWY_INLINE FloatVec widen_fp16(UintVec bits) {
  const FloatTag df;
  const UintTag du;
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
  const auto special = hn::Eq(hn::And(bits, hn::Set(du, 0x7c00u)), hn::Set(du, 0x7c00u));
  const auto scaled = hn::BitCast(du, hn::Mul(hn::BitCast(df, magnitude), hn::Set(df, 0x1p112f)));
  return hn::BitCast(df, hn::Or(sign, hn::IfThenElse(special, hn::Or(magnitude, hn::Set(du, 0x7f800000u)), scaled)));
}

HWY_INLINE UintVec narrow_bf16(FloatVec value) {
  const UintTag du;
  const auto bits = hn::BitCast(du, value);
  const auto nan = hn::Gt(hn::And(bits, hn::Set(du, 0x7fffffffu)), hn::Set(du, 0x7f800000u));
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(du, 0x7fffu), odd)));
  return hn::IfThenElse(nan, hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u)), rounded);
}

HWY_INLINE UintVec narrow_fp16(FloatVec value) {
  const FloatTag df;
  const UintTag du;
  const auto bits = hn::BitCast(du, value);
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffu));
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  auto narrow =
      hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(du, 0x38000000u)), hn::Add(hn::Set(du, 0xfffu), odd)));
  const auto subnormal =
      hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 0.5f))), hn::Set(du, 0x3f000000u));
  const auto nan = hn::Or(hn::Set(du, 0x7e00u), hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x3ffu)));
  narrow = hn::IfThenElse(hn::Gt(hn::Set(du, 0x38800000u), magnitude), subnormal, narrow);
  narrow = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x477fffffu)), hn::Set(du, 0x7c00u), narrow);
  narrow = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7f800000u)), nan, narrow);
  return hn::Or(sign, narrow);
}

template <Dtype kDtype>
HWY_INLINE FloatVec load_vector(const std::byte* from) {
  if constexpr (kDtype == Dtype::fp32) {
    return hn::LoadU(FloatTag(), reinterpret_cast<const float*>(from));
  } else {
    const auto bits = hn::PromoteTo(UintTag(), hn::LoadU(HalfTag(), reinterpret_cast<const std::uint16_t*>(from)));
    return kDtype == Dtype::bf16 ? widen_bf16(bits) : widen_fp16(bits);
  }
}

template <Dtype kDtype>
HWY_INLINE void store_vector(FloatVec value, std::byte* to) {
  if constexpr (kDtype == Dtype::fp32) {
    hn::StoreU(value, FloatTag(), reinterpret_cast<float*>(to));
  } else {
    const auto bits = hn::BitCast(IntTag(), kDtype == Dtype::bf16 ? narrow_bf16(value) : narrow_fp16(value));
    hn::StoreU(hn::DemoteTo(HalfTag(), bits), HalfTag(), reinterpret_cast<std::uint16_t*>(to));
  }
}

// to [padded] = from [width] in fp32, zeros after it.
template <Dtype kDtype>
HWY_INLINE void load_row_as(const std::byte* from, int width, float* to, int padded) {
  const FloatTag df;
  constexpr int kVectorBytes = kLanes * static_cast<int>(size_of(kDtype));
  int column = 0;
  for (; column + kLanes <= width; column += kLanes, from += kVectorBytes) {
    hn::StoreU(load_vector<kDtype>(from), df, to + column);
  }
  if (column < width) {
    alignas(64) std::byte last[64] = {};
    std::memcpy(last, from, static_cast<std::size_t>(width - column) * size_of(kDtype));
    hn::StoreU(load_vector<kDtype>(last), df, to + column);
    column += kLanes;
  }
  for (; column < padded; column += kLanes) hn::StoreU(hn::Zero(df), df, to + column);
}

HWY_INLINE void load_row(const std::byte* from, Dtype dtype, int width, float* to, int padded) {
  if (dtype == Dtype::fp32) load_row_as<Dtype::fp32>(from, width, to, padded);
  if (dtype == Dtype::bf16) load_row_as<Dtype::bf16>(from, width, to, padded);
  if (dtype == Dtype::fp16) load_row_as<Dtype::fp16>(from, width, to, padded);
}

// to [kKeyTile or more][padded]: keys [begin, end) of the unit's K or V, then zeros up to a whole kRowAlign.
HWY_INLINE void pack_keys(const TensorView& tensor, const Unit& unit, int begin, int end, float* to) {
  const int padded = padded_dim(unit.head_dim);
  for (int key = begin; key < end; ++key, to += padded) {
    load_row(tensor.at(unit.batch, key, unit.kv_head), tensor.dtype, unit.head_dim, to, padded);
  }
  std::fill_n(to, (round_up(end - begin, kRowAlign) - (end - begin)) * padded, 0.0f);
}

// True when none of [rows][padded] is Inf or NaN.
HWY_INLINE bool all_finite(const float* data, int rows, int padded) {
  const IntTag di;
  auto largest = hn::Zero(di);
  for (int i = 0; i < rows * padded; i += kLanes) {
    const auto bits = hn::Load(di, reinterpret_cast<const std::int32_t*>(data) + i);
    largest = hn::Max(largest, hn::And(bits, hn::Set(di, 0x7fffffff)));
  }
  return hn::GetLane(hn::MaxOfLanes(di, largest)) < 0x7f800000;
}

// to [padded][kPanel] = factor * from [kPanel][padded] transposed, for the first `rows` rows rounded up to whole
// vectors; rows past `rows` become zero columns.
HWY_INLINE void transpose_panel(const float* from, int rows, int padded, float factor, float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int row = 0; row < rows; ++row) {
    for (int d = 0; d < padded; ++d) to[d * kPanel + row] = factor * from[row * padded + d];
  }
#else
  const hn::Full128<float> d4;
  const hn::Full128<double> pair;
  const auto scale = hn::Set(d4, factor);
  const int columns = vectors_for(rows) * kLanes;
  for (int row = 0; row < columns; row += 4) {
    for (int d = 0; d < padded; d += 4) {
      auto load = [&](int i) HWY_ATTR {
        return row + i < rows ? hn::Mul(scale, hn::Load(d4, from + (row + i) * padded + d)) : hn::Zero(d4);
      };
      const auto a = load(0), b = load(1), c = load(2), e = load(3);
      const auto ab_low = hn::BitCast(pair, hn::InterleaveLower(a, b));
      const auto ab_high = hn::BitCast(pair, hn::InterleaveUpper(d4, a, b));
      const auto ce_low = hn::BitCast(pair, hn::InterleaveLower(c, e));
      const auto ce_high = hn::BitCast(pair, hn::InterleaveUpper(d4, c, e));
      float* out = to + d * kPanel + row;
      hn::Store(hn::BitCast(d4, hn::InterleaveLower(ab_low, ce_low)), d4, out);
      hn::Store(hn::BitCast(d4, hn::InterleaveUpper(pair, ab_low, ce_low)), d4, out + kPanel);
      hn::Store(hn::BitCast(d4, hn::InterleaveLower(ab_high, ce_high)), d4, out + 2 * kPanel);
      hn::Store(hn::BitCast(d4, hn::InterleaveUpper(pair, ab_high, ce_high)), d4, out + 3 * kPanel);
    }
  }
#endif
}

// into [width] += factor * from [width]; `into` may have any alignment.
HWY_INLINE void add_row(float* into, const float* from, int width, float factor = 1.0f) {
  const FloatTag df;
  int column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    const auto sum = hn::MulAdd(hn::Load(df, from + column), hn::Set(df, factor), hn::LoadU(df, into + column));
    hn::StoreU(sum, df, into + column);
  }
  for (; column < width; ++column) into[column] += factor * from[column];
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
