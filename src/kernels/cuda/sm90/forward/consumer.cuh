// A consumer of the Hopper forward kernel (kernel.cuh): a warpgroup, which has 64 rows of a tile, multiplies them with
// every tile of keys and values that they see, and keeps their softmax in registers.
#pragma once

#include <cmath>

#include "kernels/cuda/common/forward_rows.cuh"
#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/sm90/forward/block.cuh"

namespace orrery::kernels::cuda::sm90 {

template <typename Element, typename Tiling>
class ForwardConsumer {
  using Shared = ForwardShared<Element, Tiling>;
  using Score = Wgmma<Element, Tiling::kKeyTile>;
  using Fold = Wgmma<Element, Tiling::kDim>;
  static constexpr int kTurn = 1;  // the named barrier of the first consumer's turn

 public:
  __device__ __forceinline__ ForwardConsumer(Shared& shared, const ForwardLaunch& launch, int consumer)
      : shared_(shared), launch_(launch), consumer_(consumer) {}

  __device__ __forceinline__ void run() {
    if (consumer_ == Tiling::kConsumers - 1) pass_turn();
    for (;; ++query_.number) {
      barrier_wait(shared_.query_full[query_.place()], query_.full());
      const ForwardWork<Tiling>& work = shared_.work_at(query_.number);
      if (work.batch < 0) return;
      attend(work);
    }
  }

 private:
  // Where a thread stands. Asked for where it is wanted: the loop over keys needs the registers.
  __device__ __forceinline__ ForwardPlace place(const ForwardWork<Tiling>& work) const {
    const int warp = thread_index() % kWarpgroup / kWarp;
    const int group = static_cast<int>(launch_.call.query.heads / launch_.call.key.heads);
    return {thread_index() % kWarpgroup,
            thread_index() % kWarp,
            consumer_ * Tiling::kConsumerRows + warp * 16,
            work.first_row / Tiling::kQueryTile,
            work.first_row,
            work.batch,
            work.head,
            work.head / group};
  }

  __device__ __forceinline__ void attend(const ForwardWork<Tiling>& work) {
    ForwardRows<Tiling> rows;
    load_state(rows, launch_.call, place(work));
    const OwnVisits& own = work.own[consumer_];
    pass_over(own.begin);
    if (own.begin < own.end) {
      visit(work, rows);
    } else {
      release(shared_.query_empty[query_.place()]);
    }
    pass_over(work.visits.count() - own.end);
    if (launch_.call.last) {
      store_out(rows, place(work));
    } else {
      store_state(rows, launch_.call, place(work));
    }
    if (work.made_finite) add_nonfinite_values<Element, Tiling>(launch_.call, place(work), work.visits);
  }

  // Visits of which no row of this consumer sees anything.
  __device__ __forceinline__ void pass_over(int visits) {
#pragma unroll 1
    for (int visit = 0; visit < visits; ++visit) {
      barrier_wait(shared_.key_full[key_.place()], key_.full());
      __syncwarp();  // before it can be filled again all lanes have seen that it is full
      release(shared_.key_empty[key_.place()]);
      ++key_.number;
      barrier_wait(shared_.value_full[value_.place()], value_.full());
      __syncwarp();
      release(shared_.value_empty[value_.place()]);
      ++value_.number;
    }
  }

  // The consumer's own visits, of which there is at least one.
  __device__ __forceinline__ void visit(const ForwardWork<Tiling>& work, ForwardRows<Tiling>& rows) {
    auto& accumulator = reinterpret_cast<float(&)[Tiling::kAccumulators]>(rows.accumulator);
    const OwnVisits own = work.own[consumer_];
    float scores[Tiling::kScores];
    std::uint32_t p[Tiling::kScores / 2];
    float slack = Tiling::kSlackBySum ? 0.0f : 1.0f;
    const auto masked = [&](int visit) { return visit < own.clear_begin || visit >= own.clear_end; };

    barrier_wait(shared_.key_full[key_.place()], key_.full());
    issue_score(scores);
    wgmma_wait<0>();
    finish_scores(own.begin + 1 == own.end, scores);
    if (masked(own.begin)) mask(scores, work, work.visits.first_key(own.begin));
    softmax(scores, p, rows, slack, [] {});
#pragma unroll 1
    for (int visit = own.begin + 1; visit < own.end; ++visit) {
      barrier_wait(shared_.key_full[key_.place()], key_.full());
      wait_for_turn();
      issue_score(scores);
      barrier_wait(shared_.value_full[value_.place()], value_.full());
      issue_fold(accumulator, p);
      pass_turn();
      wgmma_wait<1>();
      finish_scores(visit + 1 == own.end, scores);
      if (masked(visit)) mask(scores, work, work.visits.first_key(visit));
      softmax(scores, p, rows, slack, [&] {
        wgmma_wait<0>();
        keep(p);
        finish_fold(accumulator);
      });
    }
    barrier_wait(shared_.value_full[value_.place()], value_.full());
    issue_fold(accumulator, p);
    wgmma_wait<0>();
    finish_fold(accumulator);
  }
  __device__ __forceinline__ void finish_scores(bool last, float (&scores)[Tiling::kScores]) {
    keep(scores);
    release(shared_.key_empty[key_.place()]);
    ++key_.number;
    if (last) release(shared_.query_empty[query_.place()]);
  }
  __device__ __forceinline__ void finish_fold(float (&accumulator)[Tiling::kAccumulators]) {
    keep(accumulator);
    release(shared_.value_empty[value_.place()]);
    ++value_.number;
  }

  // Turns.

  __device__ __forceinline__ void wait_for_turn() const {
    if (Tiling::kTurns) named_barrier_sync(kTurn + consumer_, 2 * kWarpgroup);
  }
  __device__ __forceinline__ void pass_turn() const {
    if (Tiling::kTurns) named_barrier_arrive(kTurn + (consumer_ + 1) % Tiling::kConsumers, 2 * kWarpgroup);
  }

  // Says to the producer that a warp has read what it is to read.
  __device__ __forceinline__ void release(Barrier& empty) const {
    if (thread_index() % kWarp == 0) barrier_arrive(empty);
  }

  // Products.

  // scores = Q K^T, under way.
  __device__ __forceinline__ void issue_score(float (&scores)[Tiling::kScores]) const {
    constexpr int kSteps = Tiling::kDim / 16, kPanelSteps = kPanelColumns / 16;
    const auto q = depth_along_rows(shared_address(shared_.query[0].elements[0][consumer_ * Tiling::kConsumerRows]))
                       .plus(static_cast<int>(query_.place()) * shared_.query[0].kBytes);
    const auto k = depth_along_rows(shared_address(shared_.key[0].elements))
                       .plus(static_cast<int>(key_.place()) * shared_.key[0].kBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int panel = step / kPanelSteps, column_bytes = step % kPanelSteps * 32;
      const auto k_step = k.plus(panel * shared_.key[0].kPanelBytes + column_bytes);
      Score::shared(scores, q.plus(panel * shared_.query[0].kPanelBytes + column_bytes), k_step, step > 0);
    }
    wgmma_commit();
  }

  // accumulator += P V, under way.
  __device__ __forceinline__ void issue_fold(float (&accumulator)[Tiling::kAccumulators],
                                             const std::uint32_t (&p)[Tiling::kScores / 2]) const {
    const auto v = depth_across_rows(shared_address(shared_.value[0].elements), shared_.value[0].kPanelBytes)
                       .plus(static_cast<int>(value_.place()) * shared_.value[0].kBytes);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < Tiling::kKeyTile / 16; ++step) {
      Fold::template registers<Depth::across_rows>(accumulator, p + 4 * step, v.plus(step * 16 * kPanelRowBytes), true);
    }
    wgmma_commit();
  }

  // Arithmetic on the registers of a thread: rows g = lane / 4 and g + 8 of the warp's 16, of every 8 keys two.

  // Scores of keys that a row does not see become -inf.
  __device__ __forceinline__ void mask(float (&scores)[Tiling::kScores], const ForwardWork<Tiling>& work,
                                       int first_key) const {
    const AttendForward& call = launch_.call;
    const ForwardPlace at = place(work);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.first_row + at.lane_row() + 8 * half;
      int4 range{0, static_cast<int>(call.key.tokens), 0, 0};
      if (call.key_ranges.rows != nullptr) {
        range = row < call.query.tokens ? __ldg(reinterpret_cast<const int4*>(call.key_ranges.rows + row)) : int4{};
      }
#pragma unroll
      for (int word = 0; word < Tiling::kKeyTile; word += 32) {
        const std::uint32_t bits = visible_bits(range, first_key + word + at.lane % 4 * 2);
#pragma unroll
        for (int n = word; n < Tiling::kKeyTile && n < word + 32; n += 8) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if ((bits >> (n - word + i) & 1) == 0) scores[n / 2 + 2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }

  // scores become P, rounded to p, and the state that of all scores so far. Half by half: the powers of the first half
  // of the rows hide the maxima of the second. P V of the visit before may be under way until `fold_ended` is called,
  // which waits for it, in time for p, and for the accumulator to be rescaled.
  template <typename FoldEnded>
  __device__ __forceinline__ void softmax(float (&scores)[Tiling::kScores], std::uint32_t (&p)[Tiling::kScores / 2],
                                          ForwardRows<Tiling>& rows, float& slack, const FoldEnded& fold_ended) const {
    auto& row_max = rows.row_max[0];
    auto& row_sum = rows.row_sum[0];
    const float before[2] = {row_max[0], row_max[1]};
    float sums[2];
    row_max[0] = raised_max<0>(scores, row_max[0], slack, -INFINITY);
    sums[0] = find_probabilities<0>(scores, row_max[0]);
    // The seed is -INFINITY (or NaN, which fmaxf drops) and depends on the first maximum: else both are found at once.
    row_max[1] = raised_max<1>(scores, row_max[1], slack, fmaf(row_max[0], 0.0f, -INFINITY));
    stay_behind(sums[0], shared_.nowhere);
    fold_ended();
    sums[1] = find_probabilities<1>(scores, row_max[1]);
    keep(sums);  // not to be added up behind the branch
#pragma unroll
    for (int i = 0; i < Tiling::kScores / 2; ++i) p[i] = pack<Element>(scores[2 * i], scores[2 * i + 1]);
    if (__any_sync(kAllLanes, before[0] != row_max[0] || before[1] != row_max[1])) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = exp2_approx(before[half] - row_max[half]);
        row_sum[half] *= factor;
#pragma unroll
        for (auto& fragment : rows.accumulator[0]) {
          fragment[2 * half] *= factor;
          fragment[2 * half + 1] *= factor;
        }
      }
      if (Tiling::kSlackBySum) slack = slack_of(quad_sum(fminf(row_sum[0], row_sum[1])));
    }
    row_sum[0] += sums[0];
    row_sum[1] += sums[1];
  }

  // How far the maximum of a row with this sum may lag behind its scores, in units of log 2. The power of a maximum
  // that lags is no longer 1 but rounded, which shows where few scores make up the sum: so it is at most an eighth of
  // that.
  static __device__ __forceinline__ float slack_of(float row_sum) {
    return fminf(fmaxf(log2_approx(row_sum) - 3.0f, 0.0f), 8.0f);
  }

  // A row's maximum: as it was, unless a score is more than `slack` above; so accumulators are seldom rescaled, as in
  // FlashAttention-4. P is then 2^8 at most, which fp16 has, and sums overflow only of values above 2^119. In four
  // chains, for a maximum takes longer than it takes to begin the next one.
  template <int kHalf>
  __device__ __forceinline__ float raised_max(const float (&scores)[Tiling::kScores], float before, float slack,
                                              float seed) const {
    float chains[4] = {seed, seed, seed, seed};
#pragma unroll
    for (int n = 0; n < Tiling::kScores; n += 4) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& chain = chains[n / 4 % 2 * 2 + i];
        chain = fmaxf(chain, scores[n + 2 * kHalf + i]);
      }
    }
    const float top = fmaxf(fmaxf(chains[0], chains[1]), fmaxf(chains[2], chains[3]));
    const float now = quad_max(top) * launch_.scale_log2;
    return now > before + slack ? now : before;
  }

  // The scores of a lane's row become powers, whose sum is returned.
  template <int kHalf>
  __device__ __forceinline__ float find_probabilities(float (&scores)[Tiling::kScores], float row_max) const {
    float sum = 0.0f;
#pragma unroll
    for (int n = 2 * kHalf; n < Tiling::kScores; n += 4) {
#pragma unroll
      for (int i = n; i < n + 2; ++i) {
        scores[i] = exp2_approx(fmaf(scores[i], launch_.scale_log2, -row_max));
        sum += scores[i];
      }
    }
    return sum;
  }

  // Divides, rounds and writes out and lse. The four lanes of a row exchange what they have of four blocks of 8
  // columns, so that each has one block, and writes 16 bytes.
  __device__ __forceinline__ void store_out(const ForwardRows<Tiling>& rows, const ForwardPlace& at) const {
    const AttendForward& call = launch_.call;
    const int query_len = static_cast<int>(call.query.tokens), width = static_cast<int>(call.query.width);
    const int quarter = at.lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.first_row + at.lane_row() + 8 * half;
      const float row_sum = quad_sum(rows.row_sum[0][half]);
      const float inverse = row_sum == 0.0f ? 0.0f : __frcp_rn(row_sum);
      if (row < query_len && quarter == 0) {
        head_rows<float>(call.lse, at.batch, at.head)[row * call.lse.token_stride] =
            log_sum_exp(rows.row_max[0][half], row_sum);
      }
      Element* const out = head_rows<Element>(call.out, at.batch, at.head) + row * call.out.token_stride + 8 * quarter;
#pragma unroll
      for (int c = 0; c < Tiling::kColumnBlocks; c += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &rows.accumulator[0][c + i][2 * half];
          words[i] = pack<Element>(pair[0] * inverse, pair[1] * inverse);
        }
        transpose_quad(words, quarter);
        if (row < query_len && 8 * (c + quarter) < width) {
          *reinterpret_cast<uint4*>(out + 8 * c) = {words[0], words[1], words[2], words[3]};
        }
      }
    }
  }

  // words[i] of lane q becomes words[q] of lane i, among four lanes.
  static __device__ __forceinline__ void transpose_quad(std::uint32_t (&words)[4], int quarter) {
#pragma unroll
    for (int distance = 1; distance <= 2; distance *= 2) {
      const bool upper = (quarter & distance) != 0;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if ((k & distance) != 0) continue;
        const std::uint32_t got = __shfl_xor_sync(kAllLanes, upper ? words[k] : words[k + distance], distance);
        (upper ? words[k] : words[k + distance]) = got;
      }
    }
  }

  Shared& shared_;
  const ForwardLaunch& launch_;
  const int consumer_;
  Ring<Tiling::kQueryStages> query_;
  Ring<Tiling::kStages> key_, value_;
};

}  // namespace orrery::kernels::cuda::sm90
