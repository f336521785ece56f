// A consumer of the Hopper backward kernel (kernel.cuh): a warpgroup, which has half of the keys of a tile. It
// finds P^T and dS^T of a step, adds to its dV and dK, and gives half of dQ to its carrier.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/sm90/backward/block.cuh"
#include "kernels/cuda/sm90/backward/scores.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class BackwardConsumer {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  using Stage = Ring<Tiling::kStages>;
  using QueryStage = Ring<Tiling::kQueryStages>;
  using Shared = BackwardShared<Element, Tiling>;

  using Scores = float[kQueries / 2];
  using Packed = std::uint32_t[kQueries / 4];
  using KeyGrads = float[kDim / 2];
  using QueryGrads = float[32];
  using KeySteps = std::uint32_t[4 * Tiling::kKeySteps];

  static constexpr int kKeyPanelBytes = kKeys * kPanelRowBytes, kQueryPanelBytes = kQueries * kPanelRowBytes;

 public:
  __device__ __forceinline__ BackwardConsumer(const BackwardArgs& args, Shared& shared, int consumer)
      : args_(args), shared_(shared), consumer_(consumer) {}

  __device__ __forceinline__ void run() {
    if (consumer_ == 1) pass_token();
    KeyGrads grad_key, grad_value;
    std::uint32_t number = 0;  // of the step
    Ring<1> tile;
    while (wait_for_step(number)) {
      barrier_wait(shared_.keys_full, tile.full());
      make_keys_finite<Element, Infinity::largest>(args_, shared_.key, consumer_ * 64);
      make_keys_finite<Element, Infinity::zero>(args_, shared_.value, consumer_ * 64);
      load_keys();
      Scores scores;
      wait_for_query(number);
      multiply_scores(scores, number);
      bool first = true, last;
      do {
        last = shared_.step(number).last;
        take_step(number, first, last, scores, grad_key, grad_value);
        ++number;
        first = false;
      } while (!last);
      wgmma_wait<0>();
      keep(scores);
      QueryGrads grad_query;
      multiply_grad_query(number - 1, grad_query);
      wgmma_wait<0>();
      keep(grad_query);
      finish_grad_query(number - 1, grad_query);
      arrive_as_warp(shared_.keys_empty);
#pragma unroll
      for (float& grad : grad_key) grad = scaled<Element>(grad, args_.scale);
      finish_keys(shared_.step(number - 1), grad_key, grad_value);
      ++tile.number;
    }
    // The carrier reads that there is no more to do.
    barrier_wait(shared_.grad_query_empty[consumer_], Ring<1>{number}.empty());
    arrive_as_warp(shared_.grad_query_full[consumer_]);
  }

 private:
  // Whether there is one.
  __device__ __forceinline__ bool wait_for_step(std::uint32_t number) const {
    const QueryStage ring = {number};
    barrier_wait(shared_.rows_full[ring.place()], ring.full());
    return shared_.step(number).tile >= 0;
  }
  // The token: who has it may begin dV, dK and dQ.
  __device__ __forceinline__ void await_token() {
    named_barrier_sync(kTokens + consumer_, 2 * kWarpgroup);
  }
  __device__ __forceinline__ void pass_token() {
    named_barrier_arrive(kTokens + (1 - consumer_), 2 * kWarpgroup);
  }

  // A step, whose S^T has begun; at its end `scores` is that of the next.
  __device__ __forceinline__ void take_step(std::uint32_t number, bool first, bool last, Scores& scores,
                                            KeyGrads& grad_key, KeyGrads& grad_value) {
    const Stage stage = {number};
    const QueryStage queries = {number};
    const auto& rows = shared_.rows[queries.place()];
    const auto& query = shared_.query[queries.place()];
    const auto& grad_out = shared_.grad_out[stage.place()];
    const bool full = shared_.step(number).full;
    Scores ds;
    Packed left, packed;

    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    wgmma_wait<0>();
    keep(scores);
    wgmma_fence();
    multiply_rows<0>(ds, shared_.value, grad_out);
    wgmma_commit();
    find_probabilities(scores, rows, full);
    wgmma_wait<0>();
    keep(ds);
    find_grad_scores(ds, scores, rows);
    pack_scores<Element>(left, scores);
    pack_scores<Element>(packed, ds);
    if (!full) hide_unseen<Element>(packed, left);

    barrier_wait(shared_.scores_empty[stage.place()], stage.empty());
    share(shared_.grad_scores[stage.place()], packed);
    fence_async_proxy();
    arrive_as_warp(shared_.scores_full[stage.place()]);

    await_token();
    wgmma_fence();
    multiply_columns(grad_value, left, grad_out, !first);
    wgmma_commit();
    multiply_columns(grad_key, packed, query, !first);
    wgmma_commit();
    // At the first step of a tile too, of what the tile before has left: so the code does not branch amid products.
    QueryGrads grad_query;
    multiply_grad_query(number - 1, grad_query);
    wgmma_wait<2>();
    keep(left);
    keep(grad_value);
    arrive_as_warp(shared_.grad_out_empty[stage.place()]);
    wgmma_wait<1>();
    keep(packed);
    keep(grad_key);
    arrive_as_warp(shared_.query_empty[queries.place()]);
    // At the last step too, of anything.
    if (!last) wait_for_query(number + 1);
    multiply_scores(scores, number + 1);
    wgmma_wait<1>();
    keep(grad_query);
    pass_token();
    if (!first) finish_grad_query(number - 1, grad_query);
  }

  // The consumer's 64 rows of the first columns of K.
  __device__ __forceinline__ void load_keys() {
    const int lane = thread_index() % kWarp, warp = thread_index() % kWarpgroup / kWarp;
    const int row = consumer_ * 64 + warp * 16 + lane % 16;
#pragma unroll
    for (int k = 0; k < Tiling::kKeySteps; ++k) {
      std::uint32_t fragment[4];
      ldmatrix(fragment, shared_address(&shared_.key.panels[k / 4][row]) +
                             static_cast<std::uint32_t>(((k % 4 * 2 + lane / 16) ^ (row % 8)) * 16));
#pragma unroll
      for (int i = 0; i < 4; ++i) keys_[4 * k + i] = fragment[i];
    }
  }

  __device__ __forceinline__ void wait_for_query(std::uint32_t number) const {
    const QueryStage ring = {number};
    barrier_wait(shared_.rows_full[ring.place()], ring.full());
    barrier_wait(shared_.query_full[ring.place()], ring.full());
  }
  // S^T of a step, under way.
  __device__ __forceinline__ void multiply_scores(Scores& scores, std::uint32_t number) {
    wgmma_fence();
    multiply_rows<Tiling::kKeySteps>(scores, shared_.key, shared_.query[QueryStage{number}.place()]);
    wgmma_commit();
  }

  // A consumer's 64 keys times all queries of the step, transposed: left K or V, right Q or dO. K of the first steps of
  // 16 columns is taken from registers.
  template <int kRegisterSteps>
  __device__ __forceinline__ void multiply_rows(Scores& d, const typename Shared::KeyTile& left,
                                                const typename Shared::QueryTile& right) const {
    const MatrixDescriptor a =
        depth_along_rows(shared_address(&left) + static_cast<std::uint32_t>(consumer_ * 64 * kPanelRowBytes));
    const MatrixDescriptor b = depth_along_rows(shared_address(&right));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const MatrixDescriptor b_step = b.plus(k / 4 * kQueryPanelBytes + k % 4 * 32);
      if (k < kRegisterSteps) {
        Wgmma<Element, kQueries>::template registers<Depth::along_rows>(d, &keys_[4 * k], b_step, k > 0);
      } else {
        Wgmma<Element, kQueries>::shared(d, a.plus(k / 4 * kKeyPanelBytes + k % 4 * 32), b_step, k > 0);
      }
    }
  }

  // dV += P^T dO or dK += dS^T Q.
  __device__ __forceinline__ void multiply_columns(KeyGrads& d, const Packed& left,
                                                   const typename Shared::QueryTile& right, bool add) const {
    const MatrixDescriptor b = depth_across_rows(shared_address(&right), kQueryPanelBytes);
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) {
      Wgmma<Element, kDim>::template registers<Depth::across_rows>(d, &left[4 * k], b.plus(k * 16 * kPanelRowBytes),
                                                                   add || k > 0);
    }
  }

  // A consumer's half of dQ = dS K of a step begins, as a group of its own, when both have shared their dS.
  __device__ __forceinline__ void multiply_grad_query(std::uint32_t number, QueryGrads& d) {
    const Stage ring = {number};
    barrier_wait(shared_.scores_full[ring.place()], ring.full());
    const int score_panel = Tiling::kHalvesAreRows ? consumer_ : 0, key_panel = Tiling::kHalvesAreRows ? 0 : consumer_;
    const MatrixDescriptor a = depth_across_rows(
        shared_address(&shared_.grad_scores[ring.place()]) + static_cast<std::uint32_t>(score_panel * kKeyPanelBytes),
        kKeyPanelBytes);
    const MatrixDescriptor b = depth_across_rows(
        shared_address(&shared_.key) + static_cast<std::uint32_t>(key_panel * kKeyPanelBytes), kKeyPanelBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      Wgmma<Element, 64>::template shared<Depth::across_rows, Depth::across_rows>(
          d, a.plus(k * 16 * kPanelRowBytes), b.plus(k * 16 * kPanelRowBytes), k > 0);
    }
    wgmma_commit();
  }
  // ... and has ended.
  __device__ __forceinline__ void finish_grad_query(std::uint32_t number, QueryGrads& grad_query) {
    arrive_as_warp(shared_.scores_empty[Stage{number}.place()]);
    give_grad_query(number, grad_query);
  }

  // Where StageRows has the first query of the tile that a lane has scores of.
  static __device__ __forceinline__ int first_place() {
    return thread_index() % 4 * 4;
  }
  // Of a row of StageRows, the lane's two of the j-th eight queries; two eights are one access.
  static __device__ __forceinline__ float2 pair_of(const float (&row)[kQueries], int j) {
    const float4 four = *reinterpret_cast<const float4*>(&row[first_place() + j / 2 * 16]);
    return j % 2 == 0 ? float2{four.x, four.y} : float2{four.z, four.w};
  }
  __device__ __forceinline__ void find_probabilities(Scores& p, const typename Shared::StageRows& rows,
                                                     bool full) const {
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 lse = pair_of(rows.lse, j);
      p[4 * j] = fmaf(p[4 * j], args_.scale_log2, -lse.x);
      p[4 * j + 1] = fmaf(p[4 * j + 1], args_.scale_log2, -lse.y);
      p[4 * j + 2] = fmaf(p[4 * j + 2], args_.scale_log2, -lse.x);
      p[4 * j + 3] = fmaf(p[4 * j + 3], args_.scale_log2, -lse.y);
    }
    if (!full) {
      const int key = consumer_ * 64 + first_row();
      const std::uint32_t* words = &rows.seen[key / 32][first_place()];
      const std::uint32_t one = 1u << key % 32, eighth = one << 8;
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
        const uint2 seen = *reinterpret_cast<const uint2*>(words + j / 2 * 16 + j % 2 * 2);
        if ((seen.x & one) == 0) p[4 * j] = -INFINITY;
        if ((seen.y & one) == 0) p[4 * j + 1] = -INFINITY;
        if ((seen.x & eighth) == 0) p[4 * j + 2] = -INFINITY;
        if ((seen.y & eighth) == 0) p[4 * j + 3] = -INFINITY;
      }
    }
#pragma unroll
    for (float& x : p) x = exp2_approx(x);
  }

  // dS^T from P^T and dP^T, which becomes it.
  __device__ __forceinline__ void find_grad_scores(Scores& ds, const Scores& p,
                                                   const typename Shared::StageRows& rows) const {
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 delta = pair_of(rows.delta, j);
      ds[4 * j] = p[4 * j] * minus_delta<Element>(ds[4 * j], delta.x, args_.scale);
      ds[4 * j + 1] = p[4 * j + 1] * minus_delta<Element>(ds[4 * j + 1], delta.y, args_.scale);
      ds[4 * j + 2] = p[4 * j + 2] * minus_delta<Element>(ds[4 * j + 2], delta.x, args_.scale);
      ds[4 * j + 3] = p[4 * j + 3] * minus_delta<Element>(ds[4 * j + 3], delta.y, args_.scale);
    }
  }

  // Writes a consumer's 64 rows of dS^T.
  __device__ __forceinline__ void share(typename Shared::ScoreTile& tile, const Packed& packed) const {
    const int lane = thread_index() % kWarp, warp = thread_index() % kWarpgroup / kWarp;
    const int row = consumer_ * 64 + warp * 16 + lane % 16;
    const std::uint32_t start =
        shared_address(&tile) + static_cast<std::uint32_t>(row * kPanelRowBytes + ((lane / 16) ^ (row % 8)) * 16);
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) {
      const std::uint32_t fragment[4] = {packed[4 * k], packed[4 * k + 1], packed[4 * k + 2], packed[4 * k + 3]};
      stmatrix(fragment,
               (start ^ static_cast<std::uint32_t>(k % 4 * 32)) + static_cast<std::uint32_t>(k / 4 * kKeyPanelBytes));
    }
  }

  // Hands a half of dQ to its carrier.
  __device__ __forceinline__ void give_grad_query(std::uint32_t number, QueryGrads& grads) {
#pragma unroll
    for (float& grad : grads) grad = scaled<Element>(grad, args_.scale);
    barrier_wait(shared_.grad_query_empty[consumer_], Ring<1>{number}.empty());
    // A lane has two of the four floats of a chunk; chunks are exchanged by chunk ^= row % 8. Half a warp writes at a
    // time: four rows, two chunks of each. Were these the same chunks in all rows, rows would meet in the same banks;
    // so odd rows write theirs in another order.
    const int row = first_row(), quad = thread_index() % 4;
    const bool odd = row % 2 != 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (i % 16 >= 8) continue;
      const float one = grads[i], other = grads[i + 8];
      grads[i] = odd ? other : one;
      grads[i + 8] = odd ? one : other;
    }
    const int exchange = row % 8 ^ (odd ? 4 : 0);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      auto& panel = shared_.grad_query[consumer_].panels[j / 4];
      const int column = ((j % 4 * 2 + quad / 2) ^ exchange) * 4 + quad % 2 * 2;
      *reinterpret_cast<float2*>(&panel[row][column]) = {grads[4 * j], grads[4 * j + 1]};
      *reinterpret_cast<float2*>(&panel[row + 8][column]) = {grads[4 * j + 2], grads[4 * j + 3]};
    }
    fence_async_proxy();
    arrive_as_warp(shared_.grad_query_full[consumer_]);
  }

  // dK and dV leave for the rows that this block alone owns. Why not by leave_keys() (backward_scores.cuh): with it the
  // loop over steps is compiled to other code, which is not timed yet.
  __device__ __forceinline__ void finish_keys(const BackwardStep& now, const KeyGrads& grad_key,
                                              const KeyGrads& grad_value) const {
    switch (args_.key_gradients) {
      case KeyGradients::add:
        put_keys(args_.grad_value, now, grad_value, reduce_add);
        put_keys(args_.grad_key, now, grad_key, reduce_add);
        break;
      case KeyGradients::store:
        put_keys(args_.grad_value, now, grad_value, store_four);
        put_keys(args_.grad_key, now, grad_key, store_four);
        break;
      case KeyGradients::round: {
        const auto round = [](std::uint16_t* into, float x, float y, float z, float w) {
          round_four(reinterpret_cast<Element*>(into), x, y, z, w);
        };
        put_keys(args_.value_out, now, grad_value, round);
        put_keys(args_.key_out, now, grad_key, round);
      }
    }
  }
  template <typename T, typename Put>
  __device__ __forceinline__ void put_keys(const Rows<T>& into, const BackwardStep& now, const KeyGrads& grads,
                                           const Put& put) const {
    const int quad = thread_index() % 4;
    const bool odd = quad % 2 != 0;
    // Two lanes exchange halves of two blocks of 8 columns, so that each has four columns side by side: an even lane of
    // the first block, an odd one of the second.
    const int column = quad / 2 * 4 + (odd ? 8 : 0);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int32_t key = now.work.key_tile * kKeys + consumer_ * 64 + first_row() + half * 8;
      T* const row = into.at(now.work.batch, key, now.work.kv_head) + column;
#pragma unroll
      for (int j = 0; j < kDim / 8; j += 2) {
        const float *first = &grads[4 * j + 2 * half], *second = &grads[4 * j + 4 + 2 * half];
        const float x = __shfl_xor_sync(kAllLanes, odd ? first[0] : second[0], 1);
        const float y = __shfl_xor_sync(kAllLanes, odd ? first[1] : second[1], 1);
        const float4 sums = odd ? float4{x, y, second[0], second[1]} : float4{first[0], first[1], x, y};
        if (key < args_.key_len && column + j * 8 < args_.width) put(row + j * 8, sums.x, sums.y, sums.z, sums.w);
      }
    }
  }

  static constexpr int kTokens = 1;  // and 2: named barriers, one a consumer

  const BackwardArgs& args_;
  Shared& shared_;
  const int consumer_;
  KeySteps keys_;
};

}  // namespace orrery::kernels::cuda::sm90
