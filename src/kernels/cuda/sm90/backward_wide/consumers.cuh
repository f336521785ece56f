// The consumers of the Hopper backward kernel for wide heads (attend_backward_wide.cuh): two warpgroups of different
// trades, each with the 64 keys of the tile and all columns of one gradient.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/sm90/backward/scores.cuh"
#include "kernels/cuda/sm90/backward_wide/block.cuh"

namespace orrery::kernels::cuda::sm90 {

// What both do.
template <typename Element, typename Tiling, int kConsumer>
class WideConsumer {
 protected:
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kPieces = Tiling::kPieces[kConsumer];
  using Stage = Ring<Tiling::kQueryStages>;
  using GradOutStage = Ring<Tiling::kGradOutStages>;
  using ScoreStage = Ring<Tiling::kScoreStages>;
  using Place = Ring<Tiling::kPlaces[kConsumer]>;
  using Shared = WideShared<Element, Tiling>;
  using KeyTile = typename Shared::KeyTile;
  using QueryTile = typename Shared::QueryTile;

  using Scores = float[kQueries / 2];
  using Packed = std::uint32_t[kQueries / 4];
  using KeyGrads = float[kDim / 2];
  using QueryGrads = float[32];
  static constexpr int kHeldSteps = Tiling::kHeldSteps[kConsumer];
  using Held = std::uint32_t[kHeldSteps > 0 ? 4 * kHeldSteps : 1];

  static constexpr int kKeyPanelBytes = kKeys * kPanelRowBytes, kQueryPanelBytes = kQueries * kPanelRowBytes;

  __device__ __forceinline__ WideConsumer(const BackwardArgs& args, Shared& shared) : args_(args), shared_(shared) {}

  // Whether there is one.
  __device__ __forceinline__ bool wait_for_step(std::uint32_t number) const {
    const Stage ring = {number};
    barrier_wait(shared_.rows_full[ring.place()], ring.full());
    return shared_.step(number).tile >= 0;
  }

  // Takes the first columns of K or V into registers.
  __device__ __forceinline__ void hold(Held& held, const KeyTile& left) const {
    const int lane = thread_index() % kWarp, warp = thread_index() % kWarpgroup / kWarp;
    const int row = warp * 16 + lane % 16;
    const std::uint32_t start =
        shared_address(&left) + static_cast<std::uint32_t>(row * kPanelRowBytes + ((lane / 16) ^ (row % 8)) * 16);
#pragma unroll
    for (int k = 0; k < kHeldSteps; ++k) {
      std::uint32_t fragment[4];
      ldmatrix(fragment,
               (start ^ static_cast<std::uint32_t>(k % 4 * 32)) + static_cast<std::uint32_t>(k / 4 * kKeyPanelBytes));
#pragma unroll
      for (int i = 0; i < 4; ++i) held[4 * k + i] = fragment[i];
    }
  }

  // S^T or dP^T begins, as a group of its own.
  __device__ __forceinline__ void multiply_rows(Scores& d, const Held& held, const KeyTile& left,
                                                const QueryTile& right) const {
    // Found anew each time: kept over a loop the descriptors would cost registers.
    std::uint32_t address = shared_address(&left);
    asm volatile("" : "+r"(address));
    const MatrixDescriptor a = depth_along_rows(address), b = depth_along_rows(shared_address(&right));
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const MatrixDescriptor b_step = b.plus(k / 4 * kQueryPanelBytes + k % 4 * 32);
      if (k < kHeldSteps) {
        Wgmma<Element, kQueries>::registers(d, &held[4 * k], b_step, k > 0);
      } else {
        Wgmma<Element, kQueries>::shared(d, a.plus(k / 4 * kKeyPanelBytes + k % 4 * 32), b_step, k > 0);
      }
    }
    wgmma_commit();
  }

  // dV += P^T dO or dK += dS^T Q begins, as a group of its own.
  __device__ __forceinline__ void multiply_columns(KeyGrads& d, const Packed& left, const QueryTile& right,
                                                   bool add) const {
    const MatrixDescriptor b = depth_across_rows(shared_address(&right), kQueryPanelBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) {
      Wgmma<Element, kDim>::template registers<Depth::across_rows>(d, &left[4 * k], b.plus(k * 16 * kPanelRowBytes),
                                                                   add || k > 0);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void wait_for_scores(std::uint32_t number) const {
    const ScoreStage ring = {number};
    barrier_wait(shared_.scores_full[ring.place()], ring.full());
  }
  // A piece of dQ = dS K, 64 columns, begins, as a group of its own.
  __device__ __forceinline__ void multiply_grad_query(QueryGrads& d, int piece, std::uint32_t number) const {
    const ScoreStage ring = {number};
    const int panel = (kConsumer == 0 ? 0 : Tiling::kPieces[0]) + piece;
    const MatrixDescriptor a = depth_across_rows(shared_address(&shared_.grad_scores[ring.place()]), kQueryPanelBytes);
    const MatrixDescriptor b = depth_across_rows(shared_address(&shared_.key.panels[panel]), kKeyPanelBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      Wgmma<Element, 64>::template shared<Depth::across_rows, Depth::across_rows>(
          d, a.plus(k * 16 * kPanelRowBytes), b.plus(k * 16 * kPanelRowBytes), k > 0);
    }
    wgmma_commit();
  }

  // Hands a piece of dQ to the carrier, half by half.
  __device__ __forceinline__ void give_grad_query(QueryGrads& grads) {
    const auto leaving = [this](float grad) { return scaled<Element>(grad, args_.scale); };
    const int row = first_row(), quad = thread_index() % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      barrier_wait(shared_.grad_query_empty[kConsumer][place_.place()], place_.empty());
      auto& panel = shared_.grads_of(kConsumer)[place_.place()].rows;
      // A lane has two of the four floats of a chunk; chunks are exchanged by chunk ^= row % 8.
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float* const block = &grads[16 * i + 4 * j];
        const int column = ((j * 2 + quad / 2) ^ (row % 8)) * 4 + quad % 2 * 2;
        *reinterpret_cast<float2*>(&panel[row][column]) = {leaving(block[0]), leaving(block[1])};
        *reinterpret_cast<float2*>(&panel[row + 8][column]) = {leaving(block[2]), leaving(block[3])};
      }
      fence_async_proxy();
      arrive_as_warp(shared_.grad_query_full[kConsumer][place_.place()]);
      ++place_.number;
    }
  }
  // The carrier reads that there is no more to do.
  __device__ __forceinline__ void dismiss_carrier() {
    barrier_wait(shared_.grad_query_empty[kConsumer][place_.place()], place_.empty());
    arrive_as_warp(shared_.grad_query_full[kConsumer][place_.place()]);
  }

  const BackwardArgs& args_;
  Shared& shared_;
  Place place_;
};

// Finds P^T a step ahead, and has dV.
template <typename Element, typename Tiling>
class ValueConsumer : WideConsumer<Element, Tiling, 0> {
  using Base = WideConsumer<Element, Tiling, 0>;
  using Base::args_, Base::shared_;
  using typename Base::GradOutStage, typename Base::Held, typename Base::KeyGrads, typename Base::Packed,
      typename Base::QueryGrads, typename Base::Scores, typename Base::ScoreStage, typename Base::Shared,
      typename Base::Stage;

 public:
  __device__ __forceinline__ ValueConsumer(const BackwardArgs& args, Shared& shared) : Base(args, shared) {}

  __device__ __forceinline__ void run() {
    KeyGrads grad_value;
    std::uint32_t number = 0;  // of the step
    Ring<1> tile;
    while (this->wait_for_step(number)) {
      barrier_wait(shared_.keys_full, tile.full());
      make_keys_finite<Element, Infinity::largest>(args_, shared_.key, 0);
      Held held;
      this->hold(held, shared_.key);
      Scores p;
      Packed left;
      begin_scores(p, held, number);
      wgmma_wait<0>();
      keep(p);
      tell_probabilities(p, number);
      pack_scores<Element>(left, p);
      bool first = true;
      while (!shared_.step(number).last) {
        this->wait_for_step(number + 1);
        begin_scores(p, held, number + 1);
        begin_value(grad_value, left, number, first);
        wgmma_wait<1>();
        keep(p);
        tell_probabilities(p, number + 1);
        finish_value(grad_value, left, number);
        pack_scores<Element>(left, p);
        add_query(number);
        ++number;
        first = false;
      }
      begin_value(grad_value, left, number, first);
      finish_value(grad_value, left, number);
      add_query(number);
      arrive_as_warp(shared_.keys_empty);
      const BackwardStep& now = shared_.step(number);
      leave_keys<Element>(args_, args_.grad_value, args_.value_out, now, now.work.key_tile * Tiling::kKeys, grad_value);
      ++number;
      ++tile.number;
    }
    this->dismiss_carrier();
  }

 private:
  __device__ __forceinline__ void begin_scores(Scores& p, const Held& held, std::uint32_t number) const {
    const Stage stage = {number};
    barrier_wait(shared_.query_full[stage.place()], stage.full());
    this->multiply_rows(p, held, shared_.key, shared_.query[stage.place()]);
  }

  // P^T from S^T, and to the other consumer.
  __device__ __forceinline__ void tell_probabilities(Scores& p, std::uint32_t number) const {
    const Stage stage = {number};
    find_probabilities(p, shared_.rows[stage.place()], shared_.step(number).full, 0, args_.scale_log2);
    arrive_as_warp(shared_.query_empty[stage.place()]);
    const Ring<1> ring = {number};
    barrier_wait(shared_.probabilities_empty, ring.empty());
    const int thread = thread_index() % kWarpgroup;
#pragma unroll
    for (int j = 0; j < Tiling::kQueries / 8; ++j) {
      shared_.probabilities.quads[j][thread] = {p[4 * j], p[4 * j + 1], p[4 * j + 2], p[4 * j + 3]};
    }
    arrive_as_warp(shared_.probabilities_full);
  }

  __device__ __forceinline__ void begin_value(KeyGrads& grad_value, const Packed& left, std::uint32_t number,
                                              bool first) const {
    const GradOutStage stage = {number};
    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    this->multiply_columns(grad_value, left, shared_.grad_out[stage.place()], !first);
  }
  __device__ __forceinline__ void finish_value(KeyGrads& grad_value, Packed& left, std::uint32_t number) const {
    wgmma_wait<0>();
    keep(left);
    keep(grad_value);
    arrive_as_warp(shared_.grad_out_empty[GradOutStage{number}.place()]);
  }

  __device__ __forceinline__ void add_query(std::uint32_t number) {
    this->wait_for_scores(number);
#pragma unroll
    for (int piece = 0; piece < Base::kPieces; ++piece) {
      QueryGrads grad_query;
      this->multiply_grad_query(grad_query, piece, number);
      wgmma_wait<0>();
      keep(grad_query);
      if (piece == Base::kPieces - 1) arrive_as_warp(shared_.scores_empty[ScoreStage{number}.place()]);
      this->give_grad_query(grad_query);
    }
  }
};

// Finds dS^T, and has dK.
template <typename Element, typename Tiling>
class KeyConsumer : WideConsumer<Element, Tiling, 1> {
  using Base = WideConsumer<Element, Tiling, 1>;
  using Base::args_, Base::shared_;
  using typename Base::GradOutStage, typename Base::Held, typename Base::KeyGrads, typename Base::Packed,
      typename Base::QueryGrads, typename Base::Scores, typename Base::ScoreStage, typename Base::Shared,
      typename Base::Stage;

 public:
  __device__ __forceinline__ KeyConsumer(const BackwardArgs& args, Shared& shared) : Base(args, shared) {}

  __device__ __forceinline__ void run() {
    KeyGrads grad_key;
    std::uint32_t number = 0;  // of the step
    Ring<1> tile;
    while (this->wait_for_step(number)) {
      barrier_wait(shared_.keys_full, tile.full());
      make_keys_finite<Element, Infinity::zero>(args_, shared_.value, 0);
      Held held;
      this->hold(held, shared_.value);
      Scores ds;
      begin_grad_scores(ds, held, number);
      bool first = true;
      while (!shared_.step(number).last) {
        take_step<true>(grad_key, ds, held, number, first);
        ++number;
        first = false;
      }
      take_step<false>(grad_key, ds, held, number, first);
      arrive_as_warp(shared_.keys_empty);
      const BackwardStep& now = shared_.step(number);
#pragma unroll
      for (float& grad : grad_key) grad = scaled<Element>(grad, args_.scale);
      leave_keys<Element>(args_, args_.grad_key, args_.key_out, now, now.work.key_tile * Tiling::kKeys, grad_key);
      ++number;
      ++tile.number;
    }
    this->dismiss_carrier();
  }

 private:
  // dP^T begins.
  __device__ __forceinline__ void begin_grad_scores(Scores& ds, const Held& held, std::uint32_t number) const {
    const GradOutStage stage = {number};
    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    this->multiply_rows(ds, held, shared_.value, shared_.grad_out[stage.place()]);
  }

  // dP^T of the next step begins before dQ of this one has left. In fp16 at 256 the compiler finds no registers for it.
  static constexpr bool kAhead = Base::kDim == 192 || kScaledScores<Element>;

  // From dP^T, which has begun, to that of the next step, which begins if there is one more.
  template <bool kMore>
  __device__ __forceinline__ void take_step(KeyGrads& grad_key, Scores& ds, const Held& held, std::uint32_t number,
                                            bool first) {
    const Stage stage = {number};
    const ScoreStage score_stage = {number};
    const Ring<1> ring = {number};
    Packed packed;

    barrier_wait(shared_.probabilities_full, ring.full());
    wgmma_wait<0>();
    keep(ds);
    arrive_as_warp(shared_.grad_out_empty[GradOutStage{number}.place()]);
    find_grad_scores(packed, ds, shared_.rows[stage.place()]);
    keep(packed);
    if (!shared_.step(number).full) hide_unseen(packed);
    arrive_as_warp(shared_.probabilities_empty);

    barrier_wait(shared_.scores_empty[score_stage.place()], score_stage.empty());
    share(shared_.grad_scores[score_stage.place()], packed);
    fence_async_proxy();
    arrive_as_warp(shared_.scores_full[score_stage.place()]);

    barrier_wait(shared_.query_full[stage.place()], stage.full());
    this->multiply_columns(grad_key, packed, shared_.query[stage.place()], !first);
    this->wait_for_scores(number);
    QueryGrads grad_query, last;
    this->multiply_grad_query(grad_query, 0, number);
    wgmma_wait<1>();
    keep(packed);
    keep(grad_key);
    arrive_as_warp(shared_.query_empty[stage.place()]);
    wgmma_wait<0>();
    keep(grad_query);
    this->give_grad_query(grad_query);
    this->multiply_grad_query(last, 1, number);
    if constexpr (kMore) this->wait_for_step(number + 1);  // for the carrier too, when it has the last of this dQ
    if constexpr (kMore && kAhead) begin_grad_scores(ds, held, number + 1);
    wgmma_wait<kMore && kAhead ? 1 : 0>();
    keep(last);
    arrive_as_warp(shared_.scores_empty[score_stage.place()]);
    this->give_grad_query(last);
    if constexpr (kMore && !kAhead) begin_grad_scores(ds, held, number + 1);
  }

  // dS^T, rounded, from the other consumer's P^T and dP^T.
  __device__ __forceinline__ void find_grad_scores(Packed& packed, const Scores& dp,
                                                   const typename Shared::StageRows& rows) const {
    const int column = first_column(), thread = thread_index() % kWarpgroup;
#pragma unroll
    for (int j = 0; j < Tiling::kQueries / 8; ++j) {
      const float4 p = shared_.probabilities.quads[j][thread];
      const float2 delta = *reinterpret_cast<const float2*>(&rows.delta[column + j * 8]);
      packed[2 * j] = pack<Element>(p.x * minus_delta<Element>(dp[4 * j], delta.x, args_.scale),
                                    p.y * minus_delta<Element>(dp[4 * j + 1], delta.y, args_.scale));
      packed[2 * j + 1] = pack<Element>(p.z * minus_delta<Element>(dp[4 * j + 2], delta.x, args_.scale),
                                        p.w * minus_delta<Element>(dp[4 * j + 3], delta.y, args_.scale));
    }
  }

  // Of dS^T: 0 where P^T is. There the mask may hide the pair, and dS^T may be NaN (nonfinite.cuh).
  __device__ __forceinline__ void hide_unseen(Packed& packed) const {
#pragma unroll
    for (int j = 0; j < Tiling::kQueries / 8; ++j) {
      const float4 p = shared_.probabilities.quads[j][thread_index() % kWarpgroup];
      if (p.x == 0.0f) packed[2 * j] &= 0xffff0000u;
      if (p.y == 0.0f) packed[2 * j] &= 0x0000ffffu;
      if (p.z == 0.0f) packed[2 * j + 1] &= 0xffff0000u;
      if (p.w == 0.0f) packed[2 * j + 1] &= 0x0000ffffu;
    }
  }

  __device__ __forceinline__ void share(typename Shared::ScoreTile& tile, const Packed& packed) const {
    const int lane = thread_index() % kWarp, warp = thread_index() % kWarpgroup / kWarp;
    const int row = warp * 16 + lane % 16;
    const std::uint32_t start =
        shared_address(&tile) + static_cast<std::uint32_t>(row * kPanelRowBytes + ((lane / 16) ^ (row % 8)) * 16);
#pragma unroll
    for (int k = 0; k < Tiling::kQueries / 16; ++k) {
      const std::uint32_t fragment[4] = {packed[4 * k], packed[4 * k + 1], packed[4 * k + 2], packed[4 * k + 3]};
      stmatrix(fragment, start ^ static_cast<std::uint32_t>(k * 32));
    }
  }
};

}  // namespace orrery::kernels::cuda::sm90
