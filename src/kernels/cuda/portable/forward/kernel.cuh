// The forward kernel of 16-bit tensors, in FlashAttention-2's order (Dao, 2023). A block of threads owns a tile of
// query rows of one head and visits the tiles of keys that these rows see. Each warp owns 16 or 32 of the rows and
// works alone between barriers: scores = Q K^T; the new row maxima; P = 2^(scores - maximum), which stays in registers,
// because two accumulators side by side are an operand of the next product; accumulator += P V. The maximum
// is that of the scores themselves, so that the largest P is 1 and rounds to 1: a row that sees little else loses
// nothing. A warp rescales its accumulators when the maximum of any of its rows has changed.
//
// Copies run behind the products. With one stage, a tile of values arrives during Q K^T and the next keys during P V;
// with two stages, the next keys and values arrive during a whole visit, and one barrier a visit is enough.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "device/check.hpp"
#include "kernels/cuda/common/forward_rows.cuh"
#include "kernels/cuda/common/forward_tiles.cuh"
#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/sm_share.cuh"
#include "kernels/cuda/common/smem_tile.cuh"
#include "kernels/cuda/common/state.cuh"
#include "kernels/cuda/portable/forward/attend_forward.hpp"

namespace orrery::kernels::cuda {

template <typename Element, typename Tiling>
using QueryTile = SmemTile<Element, Tiling::kQueryTile, Tiling::kDim>;
template <typename Element, typename Tiling>
using KeyTile = SmemTile<Element, Tiling::kKeyTile, Tiling::kDim>;

template <typename Element, typename Tiling>
struct ForwardShared {
  QueryTile<Element, Tiling> query;  // at the end: out
  KeyTile<Element, Tiling> key[Tiling::kStages], value[Tiling::kStages];
  int4 ranges[Tiling::kQueryTile];  // begin, end, sink_begin, sink_end of each row
  KeyVisits<Tiling::kKeyTile> visits;
  std::int32_t ticket;  // on a share of the multiprocessors: the number of the work at hand
  const Element *query_rows, *key_rows, *value_rows;  // [tokens][head_dim] of the head
};

template <typename Tiling>
using ForwardScores = float[Tiling::kRowBlocks][Tiling::kKeyBlocks][4];

// scores = Q K^T of a warp's rows and a tile of keys.
template <typename Element, typename Tiling>
__device__ __forceinline__ void score(ForwardScores<Tiling>& scores, const QueryTile<Element, Tiling>& query,
                                      const KeyTile<Element, Tiling>& key) {
  const int thread = thread_index(), lane = thread % kWarp;
  const std::uint32_t query_start = query.at(query.start_a(lane), thread / kWarp * Tiling::kWarpRows, 0);
  const std::uint32_t key_start = key.start_b(lane);
#pragma unroll
  for (auto& block : scores) {
#pragma unroll
    for (auto& fragment : block) fragment[0] = fragment[1] = fragment[2] = fragment[3] = 0.0f;
  }
#pragma unroll
  for (int depth = 0; depth < Tiling::kDim; depth += 16) {
    std::uint32_t q[Tiling::kRowBlocks][4];
#pragma unroll
    for (int b = 0; b < Tiling::kRowBlocks; ++b) ldmatrix(q[b], query.at(query_start, 16 * b, depth));
#pragma unroll
    for (int n = 0; n < Tiling::kKeyTile; n += 16) {
      std::uint32_t k[4];
      ldmatrix(k, key.at(key_start, n, depth));
#pragma unroll
      for (int b = 0; b < Tiling::kRowBlocks; ++b) {
        mma<Element>(scores[b][n / 8], q[b], k[0], k[1]);
        mma<Element>(scores[b][n / 8 + 1], q[b], k[2], k[3]);
      }
    }
  }
}

// The key ranges of a tile's rows, from which partial tiles of keys are masked.
template <typename Element, typename Tiling>
__device__ __forceinline__ void load_ranges(ForwardShared<Element, Tiling>& shared, const AttendForward& call,
                                            const ForwardPlace& at) {
  const int query_len = static_cast<int>(call.query.tokens), key_len = static_cast<int>(call.key.tokens);
  for (int i = at.thread; i < Tiling::kQueryTile; i += Tiling::kThreads) {
    KeyRange range{0, key_len, 0, 0};
    if (call.key_ranges.rows != nullptr) {
      range = at.first_row + i < query_len ? call.key_ranges.rows[at.first_row + i] : KeyRange{};
    }
    shared.ranges[i] = make_int4(range.begin, range.end, range.sink_begin, range.sink_end);
  }
}

// Scores of keys that a row does not see become -inf. ranges: of all rows of the tile.
template <typename Tiling>
__device__ __forceinline__ void mask_scores(ForwardScores<Tiling>& scores, const int4 (&ranges)[Tiling::kQueryTile],
                                            int first_key) {
  const int thread = thread_index(), lane = thread % kWarp;
  const int lane_row = thread / kWarp * Tiling::kWarpRows + lane / 4;
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int4 range = ranges[lane_row + 16 * b + 8 * half];
#pragma unroll
      for (int word = 0; word < Tiling::kKeyTile; word += 32) {
        const std::uint32_t bits = visible_bits(range, first_key + word + lane % 4 * 2);
#pragma unroll
        for (int n = word; n < Tiling::kKeyTile && n < word + 32; n += 8) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if ((bits >> (n - word + i) & 1) == 0) scores[b][n / 8][2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }
}

// Raises the maxima to those of the scores, and rescales what was folded in under the old ones.
template <typename Tiling>
__device__ __forceinline__ void raise_maxima(ForwardRows<Tiling>& rows, const ForwardScores<Tiling>& scores,
                                             float scale) {
  float raised[Tiling::kRowBlocks][2];
  bool changed = false;
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = fmaxf(scores[b][0][2 * half], scores[b][0][2 * half + 1]);
#pragma unroll
      for (int n = 1; n < Tiling::kKeyBlocks; ++n) {
        top = fmaxf(top, fmaxf(scores[b][n][2 * half], scores[b][n][2 * half + 1]));
      }
      raised[b][half] = fmaxf(rows.row_max[b][half], quad_max(top) * scale);
      changed |= raised[b][half] != rows.row_max[b][half];
    }
  }
  if (!__any_sync(kAllLanes, changed)) return;
#pragma unroll
  for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = exp2_approx(rows.row_max[b][half] - raised[b][half]);
      rows.row_max[b][half] = raised[b][half];
      rows.row_sum[b][half] *= factor;
#pragma unroll
      for (auto& fragment : rows.accumulator[b]) {
        fragment[2 * half] *= factor;
        fragment[2 * half + 1] *= factor;
      }
    }
  }
}

// accumulator += P V and row_sum += P. The exponentials of 16 keys stand before their product, so that those of the
// next 16 can run beside it.
template <typename Element, typename Tiling>
__device__ __forceinline__ void fold(ForwardRows<Tiling>& rows, const ForwardScores<Tiling>& scores, float scale,
                                     const KeyTile<Element, Tiling>& value) {
  const std::uint32_t value_start = value.start_b_trans(thread_index() % kWarp);
#pragma unroll
  for (int n = 0; n < Tiling::kKeyTile; n += 16) {
    std::uint32_t p[Tiling::kRowBlocks][4];
#pragma unroll
    for (int b = 0; b < Tiling::kRowBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // keys n + 8 (i / 2) + 0..7, row i % 2
        const float* s = &scores[b][n / 8 + i / 2][i % 2 * 2];
        const float from = -rows.row_max[b][i % 2];
        const float low = exp2_approx(fmaf(s[0], scale, from)), high = exp2_approx(fmaf(s[1], scale, from));
        rows.row_sum[b][i % 2] += low + high;
        p[b][i] = pack<Element>(low, high);
      }
    }
#pragma unroll
    for (int column = 0; column < Tiling::kDim; column += 16) {
      std::uint32_t v[4];
      ldmatrix_trans(v, value.at(value_start, n, column));
#pragma unroll
      for (int b = 0; b < Tiling::kRowBlocks; ++b) {
        mma<Element>(rows.accumulator[b][column / 8], p[b], v[0], v[1]);
        mma<Element>(rows.accumulator[b][column / 8 + 1], p[b], v[2], v[3]);
      }
    }
  }
}

// The work of one block; block() is its number, read anew wherever it is needed.
template <typename Element, typename Tiling, typename Block>
__device__ __forceinline__ void attend_tile(ForwardShared<Element, Tiling>& shared, const AttendForward& call,
                                            const ForwardOrder& order, float scale, const Block& block) {
  const ForwardPlace at = forward_place<Tiling>(call, order, block());
  const int query_len = static_cast<int>(call.query.tokens), key_len = static_cast<int>(call.key.tokens);
  const auto visits = key_visits<Tiling>(call.key_ranges, at.query_tile, query_len, key_len);
  const int count = visits.count();
  if (count == 0 && !call.first && !call.last) return;

  if (at.thread == 0) {
    shared.visits = visits;
    shared.query_rows = head_rows<Element>(call.query, at.batch, at.head);
    shared.key_rows = head_rows<Element>(call.key, at.batch, at.kv_head);
    shared.value_rows = head_rows<Element>(call.value, at.batch, at.kv_head);
  }
  load_ranges(shared, call, at);
  __syncthreads();

  const auto load = [](auto& tile, const Element* head, const TensorView& tensor, int first_row) {
    const TileLoader<std::remove_reference_t<decltype(tile)>, Tiling::kThreads> loader(
        head, tensor.token_stride, static_cast<int>(tensor.width), thread_index());
    loader.load(tile, first_row, static_cast<int>(tensor.tokens));
  };
  const auto load_keys = [&](int visit) {
    load(shared.key[visit % Tiling::kStages], shared.key_rows, call.key, shared.visits.first_key(visit));
  };
  const auto load_values = [&](int visit) {
    load(shared.value[visit % Tiling::kStages], shared.value_rows, call.value, shared.visits.first_key(visit));
  };
  if (count > 0) {
    load(shared.query, shared.query_rows, call.query, at.first_row);
    load_keys(0);
    if (Tiling::kStages == 2) load_values(0);
    cp_async_commit();
  }
  ForwardRows<Tiling> rows;
  load_state(rows, call, at);

  // Maxima are taken before the scale, so `scale` is positive, and a negative sign goes to Q.
  if (call.scale < 0.0f && count > 0) {
    cp_async_wait<0>();
    __syncthreads();
    auto* const pairs = reinterpret_cast<std::uint32_t*>(shared.query.chunks);
    for (int i = at.thread; i < Tiling::kQueryTile * Tiling::kDim / 2; i += Tiling::kThreads) {
      pairs[i] ^= 0x80008000u;
    }
  }

  bool made_finite = false;  // any tile of values
  for (int visit = 0; visit < shared.visits.count(); ++visit) {
    const int stage = visit % Tiling::kStages;
    cp_async_wait<0>();
    __syncthreads();  // all have this visit's keys, and are done with the last one's values
    if constexpr (Tiling::kStages == 1) {
      load_values(visit);
    } else if (visit + 1 < shared.visits.count()) {
      load_keys(visit + 1);
      load_values(visit + 1);
    }
    cp_async_commit();

    ForwardScores<Tiling> scores;
    score<Element, Tiling>(scores, shared.query, shared.key[stage]);
    if constexpr (Tiling::kStages == 1) {
      cp_async_wait<0>();
      __syncthreads();  // all have this visit's values, and are done with its keys
      if (visit + 1 < shared.visits.count()) load_keys(visit + 1);
      cp_async_commit();
    }
    const int first_key = shared.visits.first_key(visit);
    if (!shared.visits.is_full(first_key)) {
      mask_scores<Tiling>(scores, shared.ranges, first_key);
      if (call.key_ranges.rows != nullptr) {
        constexpr int kChunks = sizeof(shared.value[stage].chunks) / sizeof(uint4);
        made_finite |= __syncthreads_or(
            make_finite<Element, Infinity::zero>(shared.value[stage].chunks, kChunks, at.thread, Tiling::kThreads));
      }
    }
    raise_maxima(rows, scores, scale);
    fold<Element, Tiling>(rows, scores, scale, shared.value[stage]);
  }

  const ForwardPlace end = forward_place<Tiling>(call, order, block());
  if (call.last) {
    store_out<Element>(rows, call, end, shared.query);
  } else {
    store_state(rows, call, end);
  }
  if (made_finite) add_nonfinite_values<Element, Tiling>(call, end, shared.visits);
}

// Share: SmShare, or nothing.
template <typename Element, typename Tiling, typename... Share>
__global__ void __launch_bounds__(Tiling::kThreads, Tiling::kBlocksPerSm)
    attend_forward_kernel(const __grid_constant__ AttendForward call, const ForwardOrder order, const float scale,
                          Share... share) {
  using Shared = ForwardShared<Element, Tiling>;
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);
  if constexpr (sizeof...(Share) == 0) {
    attend_tile(shared, call, order, scale, block_index);
  } else {
    for_each_ticket(share..., shared.ticket,
                    [&] { attend_tile(shared, call, order, scale, [&] { return shared.ticket; }); });
  }
}

// The tiling of a head_dim, by the limits of an H200: 65536 registers and 227 KiB of shared memory an SM. Warps of 32
// rows read each key and value half as often as warps of 16 do, as long as their accumulators fit the registers.
template <int kDim>
struct ForwardTilings;
template <>
struct ForwardTilings<32> {  // head_dim, query rows, keys, warps, stages, blocks an SM
  using Best = ForwardTiling<32, 128, 64, 4, 2, 3>;
};
template <>
struct ForwardTilings<64> {
  using Best = ForwardTiling<64, 128, 64, 4, 2, 3>;
};
template <>
struct ForwardTilings<96> {
  using Best = ForwardTiling<96, 128, 64, 4, 2, 2>;
};
template <>
struct ForwardTilings<128> {
  using Best = ForwardTiling<128, 128, 64, 4, 2, 2>;
};
template <>
struct ForwardTilings<192> {
  using Best = ForwardTiling<192, 64, 64, 4, 1, 2>;
};
template <>
struct ForwardTilings<256> {
  using Best = ForwardTiling<256, 64, 64, 4, 1, 2>;
};

template <typename Element, typename Tiling>
void launch_tiled(const AttendForward& call, device::StreamHandle stream) {
  using Shared = ForwardShared<Element, Tiling>;
  static_assert(sizeof(Shared) <= 99 << 10, "sm_86 and sm_89 have no more");
  if (call.query.elements() == 0) return;
  const ForwardOrder order = forward_order<Tiling>(call);
  const int blocks = order.blocks();

  // Units of log 2. Positive: 0 becomes next to nothing, and the kernel gives the sign to Q.
  constexpr float kLog2E = 0x1.715476p+0f;
  const float scale = std::max(std::abs(call.scale) * kLog2E, FLT_MIN);

  launch_tickets(blocks, call.sm_margin, Tiling::kBlocksPerSm, call.scratch, stream, [&](unsigned grid, auto... share) {
    const auto kernel = attend_forward_kernel<Element, Tiling, decltype(share)...>;
    ORRERY_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)));
    ORRERY_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
    kernel<<<grid, Tiling::kThreads, sizeof(Shared), stream>>>(call, order, scale, share...);
  });
}

template <Dtype kDtype, int kDim>
void launch_attend_forward(const AttendForward& call, device::StreamHandle stream) {
  using Element = std::conditional_t<kDtype == Dtype::bf16, __nv_bfloat16, __half>;
  launch_tiled<Element, typename ForwardTilings<kDim>::Best>(call, stream);
}

}  // namespace orrery::kernels::cuda
