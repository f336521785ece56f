// One matrix product serves every sum of attention: C (+)= W X, where a row of C and of X is a row of vectors and W
// gives the scalars that are broadcast. Forward: scores = K Q^T and out += P^T V. Backward: scores, dP = V dO^T, dV +=
// P dO, dK += dS Q, dQ += dS^T K. Eight rows of C by up to three vectors are held in registers while the whole depth is
// summed, from zero; only then is C added. Terms that are each too small to change a large C count when they come
// together: without this a block folded in after the one with the large scores loses much of its share.

#if defined(ORRERY_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_PRODUCT_INL_H_
#undef ORRERY_PRODUCT_INL_H_
#else
#define ORRERY_PRODUCT_INL_H_
#endif

#include <cstddef>

#include "kernels/host/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

// Register blocking: 8 x 3 accumulators where there are 32 registers, 4 x 3 where there are 16.
constexpr int kRows = (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_ARCH_ARM_A64) ? 8 : 4;
constexpr int kVectors = 3;
static_assert(kRowAlign % kRows == 0 && kKeyTile % kRowAlign == 0 && kPanel % kRowAlign == 0,
              "rounding a row count up must stay inside the tile");

enum class Start { kZero, kAdd, kScaled };  // C starts from 0, from C, or from C times a factor for each row

// A matrix of scalars. `down`: consecutive depths are adjacent and rows `stride` apart; else the other way round.
struct Weights {
  const float* data;
  std::ptrdiff_t stride;
};

// X is [depth][x_stride], C is [rows][c_stride]. With kGuard a zero weight adds nothing even when X is Inf or NaN.
template <int kWidth, bool kDown, Start kStart, bool kGuard>
HWY_INLINE void product_block(const float* HWY_RESTRICT w, std::ptrdiff_t w_stride, const float* HWY_RESTRICT x,
                              std::ptrdiff_t x_stride, int depth, float* HWY_RESTRICT c, std::ptrdiff_t c_stride,
                              const float* HWY_RESTRICT factors) {
  const FloatTag df;
  FloatVec sum[kRows][kWidth];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWidth; ++v) sum[r][v] = hn::Zero(df);
  }
  for (int t = 0; t < depth; ++t) {
    FloatVec row[kWidth];
    for (int v = 0; v < kWidth; ++v) row[v] = hn::Load(df, x + v * kLanes);
    x += x_stride;
    for (int r = 0; r < kRows; ++r) {
      const FloatVec weight = hn::Set(df, kDown ? w[r * w_stride + t] : w[r]);
      for (int v = 0; v < kWidth; ++v) {
        if constexpr (kGuard) {
          const auto unused = hn::Eq(weight, hn::Zero(df));  // false for NaN, which must show
          sum[r][v] = hn::IfThenElse(unused, sum[r][v], hn::MulAdd(weight, row[v], sum[r][v]));
        } else {
          sum[r][v] = hn::MulAdd(weight, row[v], sum[r][v]);
        }
      }
    }
    if constexpr (!kDown) w += w_stride;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWidth; ++v) {
      float* at = c + r * c_stride + v * kLanes;
      if constexpr (kStart == Start::kAdd) sum[r][v] = hn::Add(hn::Load(df, at), sum[r][v]);
      if constexpr (kStart == Start::kScaled)
        sum[r][v] = hn::MulAdd(hn::Load(df, at), hn::Set(df, factors[r]), sum[r][v]);
      hn::Store(sum[r][v], df, at);
    }
  }
}

template <int kWidth, bool kDown, Start kStart, bool kGuard>
HWY_NOINLINE void product_columns(Weights w, const float* x, std::ptrdiff_t x_stride, int rows, int depth, float* c,
                                  std::ptrdiff_t c_stride, const float* factors) {
  for (int r = 0; r < rows; r += kRows) {
    product_block<kWidth, kDown, kStart, kGuard>(kDown ? w.data + r * w.stride : w.data + r, w.stride, x, x_stride,
                                                 depth, c + r * c_stride, c_stride,
                                                 kStart == Start::kScaled ? factors + r : nullptr);
  }
}

template <bool kDown, Start kStart, bool kGuard>
HWY_INLINE void product_guarded(Weights w, const float* x, std::ptrdiff_t x_stride, int rows, int vectors, int depth,
                                float* c, std::ptrdiff_t c_stride, const float* factors) {
  while (vectors > 0) {
    // Four vectors are two and two: a lone vector would load more than it multiplies.
    const int width = vectors == 4 ? 2 : std::min(vectors, kVectors);
    if (width == 3) product_columns<3, kDown, kStart, kGuard>(w, x, x_stride, rows, depth, c, c_stride, factors);
    if (width == 2) product_columns<2, kDown, kStart, kGuard>(w, x, x_stride, rows, depth, c, c_stride, factors);
    if (width == 1) product_columns<1, kDown, kStart, kGuard>(w, x, x_stride, rows, depth, c, c_stride, factors);
    vectors -= width;
    x += width * kLanes;
    c += width * kLanes;
  }
}

// C [rows rounded up to kRowAlign][vectors] from W and X; all pointers are vector-aligned, all strides whole vectors.
template <bool kDown, Start kStart>
HWY_INLINE void product(Weights w, const float* x, std::ptrdiff_t x_stride, int rows, int vectors, int depth, float* c,
                        std::ptrdiff_t c_stride, bool guard = false, const float* factors = nullptr) {
  if (kStart != Start::kZero && guard) {
    product_guarded<kDown, kStart, true>(w, x, x_stride, rows, vectors, depth, c, c_stride, factors);
  } else {
    product_guarded<kDown, kStart, false>(w, x, x_stride, rows, vectors, depth, c, c_stride, factors);
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
