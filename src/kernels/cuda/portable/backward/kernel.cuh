// The backward pass of one block of key-values, on tensor cores, in the order of FlashAttention-2 (Dao, 2023) with the
// scores transposed. A thread block owns a tile of keys of one KV head: K and V stay in shared memory, dK and dV in
// registers, while the query tiles that see these keys pass by, each with every query head of the group. A step:
//
//   S^T = K Q^T             P^T = 2^(S^T scale log2(e) - lse log2(e))        0 where a query does not see a key
//   dP^T = V dO^T           dS^T = P^T (dP^T - delta)
//   dV += P^T dO            dK += dS^T Q            dQ += dS K               dK and dQ times the scale when they leave
//
// A warp computes a patch of S^T, 32 keys by the queries of its side, and finds P^T and dS^T in its registers as the
// left operands of dV and dK. It owns 32 keys by the columns of its side of dV and dK, which need the queries of all
// sides: the patches of the others, and all of dS for dQ, come through shared memory.
//
// Twice a step a warp needs what others have done: their tiles loaded, their patches written. Both are barriers in two
// halves. A warp arrives as early as it can and waits as late as it can, with a product or the additions to dQ in
// between, so that warps drift apart and one multiplies while another adds or takes exponentials. The next query tile
// and the bounds of its rows are loaded one step ahead.
//
// Blocks share nothing but dQ, to which they add in global memory. When the order matters, they add to a query tile in
// turn (backward_visits.cuh): a counter a query tile and head says whose turn it is. A block only ever waits for blocks
// with lower tiles of keys; these have drawn lower tickets, and who has drawn a ticket is running; the lowest ticket
// that is not done waits for nobody. So every wait ends, however few blocks a device can hold.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/common/backward_args.cuh"
#include "kernels/cuda/common/backward_visits.cuh"
#include "kernels/cuda/common/nonfinite.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/sm_share.cuh"
#include "kernels/cuda/common/smem_tile.cuh"
#include "kernels/cuda/common/warp_product.cuh"
#include "kernels/cuda/portable/backward/tiling.cuh"

namespace orrery::kernels::cuda {

template <typename Element, typename Tiling>
class BackwardBlock {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kThreads = Tiling::kThreads, kStages = Tiling::kStages;

  using KeyTile = SmemTile<Element, kKeys, kDim>;
  using QueryTile = SmemTile<Element, kQueries, kDim>;
  using ScoreTile = SmemTile<Element, kKeys, kQueries>;  // transposed: a row a key
  using Rule = VisitRule<kQueries, kKeys>;

  // Fragments. Scores: 32 keys as m16 blocks, the queries of a side as n8.
  static constexpr int kKeyBlocks = Tiling::kWarpKeys / 16;
  static constexpr int kQuerySteps = Tiling::kSideQueries / 16;
  using Scores = float[kKeyBlocks][2 * kQuerySteps][4];
  using Packed = std::uint32_t[kQuerySteps][kKeyBlocks][4];
  using KeyGrads = float[kKeyBlocks][Tiling::kSideColumns / 8][4];
  using QueryGrads = float[Tiling::kDqRows / 16][Tiling::kDqColumns / 8][4];

 public:
  struct Stage {
    QueryTile query, grad_out;
  };
  struct Shared {
    KeyTile key, value;
    Stage stages[kStages];
    ScoreTile probabilities, grad_scores;
    // lse times log2(e), +inf for a row that gets no gradient, NaN for one that saw what is not finite; then delta
    float lse_delta[2 * kQueries];
    std::int32_t ticket;
    std::int32_t first_key, batch, kv_head;  // what the block is for
    std::int32_t dead;                       // the last step that has a row to bury
    std::int32_t* turn;                      // to pass on once all have added; thread 0's
    SplitBarrier loaded, written;            // phases: steps
    VisitList<kThreads> visits;
  };

  __device__ __forceinline__ BackwardBlock(const BackwardArgs<Element>& args, Shared& shared)
      : args_(args), shared_(shared) {}

  // Makes room for the barriers of the next ticket.
  __device__ __forceinline__ void retire() {
    __syncthreads();
    if (thread_index() != 0) return;
    shared_.loaded.end();
    shared_.written.end();
  }

  // The work of the ticket that thread 0 has drawn.
  __device__ __forceinline__ void run() {
    take_place();
    if (thread_index() == 0) {
      shared_.dead = -1;
      shared_.loaded.init(Tiling::kWarps);
      shared_.written.init(Tiling::kWarps);
    }
    load_keys();
    shared_.visits.begin(rule());
    shared_.visits.fill(rule());
    Step next = {0, 0, shared_.visits[0]};
    if (next.empty()) {
      cp_async_wait<0>();
      if (args_.key_gradients != KeyGradients::add) finish();
      return;
    }
    __syncthreads();
    load_queries(next, shared_.stages[0]);
    store_row(load_row(next), 0);
    cp_async_wait<0>();
    arrive(shared_.loaded);
    if (args_.ranges != nullptr) {
      shared_.loaded.wait(0);
      // Another warp may find S or dP of a pair from either: lse or delta is NaN where the pair counts.
      make_finite<Element, Infinity::largest>(shared_.key.chunks, sizeof(KeyTile) / sizeof(uint4), thread_index(),
                                              kThreads);
      make_finite<Element, Infinity::zero>(shared_.value.chunks, sizeof(KeyTile) / sizeof(uint4), thread_index(),
                                           kThreads);
    }

#pragma unroll 1
    for (std::int32_t number = 0; !next.empty(); ++number) {
      Stage& stage = shared_.stages[number % kStages];
      const Step step = next;
      next = following(step);
      shared_.loaded.wait(number);  // its tiles are there, and all that the step before has read is free
      if (shared_.dead == number) bury(stage);
      if (kStages == 2 && !next.empty()) load_queries(next, shared_.stages[(number + 1) % kStages]);
      Scores p, ds = {};
      Packed left;
      find_probabilities(step, stage, p);
      multiply_rows(shared_.value, stage.grad_out, ds);
      pack_and_share(p, left, shared_.probabilities);
      add_own(grad_value_, stage.grad_out, left);
      find_grad_scores(step, p, ds, left);
      arrive(shared_.written);
      add_own(grad_key_, stage.query, left);
      const float row = next.empty() ? 0 : load_row(next);
      shared_.written.wait(number);  // all patches are shared, lse and delta not needed any more, the dQ before added
      if (number > 0) pass_turn();
      store_row(row, number + 1);
      add_others(grad_value_, stage.grad_out, shared_.probabilities);
      add_others(grad_key_, stage.query, shared_.grad_scores);
      if constexpr (kStages == 1) {
        __syncthreads();  // nobody reads Q and dO any more
        if (!next.empty()) load_queries(next, stage);
      }
      add_query_grads(step);
    }
    __syncthreads();  // the last dQ is added
    pass_turn();
    finish();
  }

 private:
  // A query tile, and one query head of the group; the heads of a tile follow one another.
  struct Step {
    std::int32_t head, index;  // index: of the visit in the list
    Visited visited;

    __device__ __forceinline__ bool empty() const { return visited.tile_full < 0; }
    __device__ __forceinline__ bool full() const { return visited.tile_full % 2 != 0; }
    __device__ __forceinline__ std::int32_t first_query() const { return visited.tile_full / 2 * kQueries; }
  };
  // Where a thread's warp stands in the grid of warps.
  struct Place {
    int lane, warp, side, key;  // key: the first of the warp's in the tile
  };
  static __device__ __forceinline__ Place place() {
    const auto thread = static_cast<unsigned>(thread_index());
    const unsigned warp = thread / kWarp;
    return {static_cast<int>(thread % kWarp), static_cast<int>(warp), static_cast<int>(warp % Tiling::kSides),
            static_cast<int>(warp / Tiling::kSides * Tiling::kWarpKeys)};
  }

  // What the block is for, by its ticket: the tiles of keys of one unit after the other, the lowest first, and at the
  // end those of the units that go side by side.
  __device__ __forceinline__ void take_place() {
    if (thread_index() == 0) {
      const std::int32_t key_tiles = (args_.key_len - 1) / kKeys + 1, side_by_side = args_.side_by_side;
      const std::int32_t one_by_one = args_.batch * args_.kv_heads - side_by_side;
      const std::int32_t ticket = shared_.ticket, late = ticket - one_by_one * key_tiles;
      const std::int32_t tile = late < 0 ? ticket % key_tiles : late / side_by_side;
      const std::int32_t unit = late < 0 ? ticket / key_tiles : one_by_one + late % side_by_side;
      shared_.first_key = tile * kKeys;
      shared_.batch = unit / args_.kv_heads;
      shared_.kv_head = unit % args_.kv_heads;
    }
    __syncthreads();
  }
  __device__ __forceinline__ Rule rule() const {
    return {args_.bounds, args_.query_len, args_.key_len, shared_.first_key / kKeys};
  }
  __device__ __forceinline__ std::int32_t query_head(const Step& step) const {
    return shared_.kv_head * args_.group + step.head;
  }
  // The next step, by all threads together; empty behind the last.
  __device__ __forceinline__ Step following(Step step) {
    if (++step.head < args_.group) return step;
    step.head = 0;
    step.visited = shared_.visits[++step.index];
    if (step.empty()) {
      shared_.visits.fill(rule());
      step.index = 0;
      step.visited = shared_.visits[0];
    }
    return step;
  }

  // A warp's arrival.
  static __device__ __forceinline__ void arrive(SplitBarrier& barrier) {
    __syncwarp();
    if (thread_index() % kWarp == 0) barrier.arrive();
  }

  // Loading.

  template <typename Tile>
  __device__ __forceinline__ void load(Tile& tile, const Rows<const Element>& rows, std::int32_t head,
                                       std::int32_t first_row, std::int32_t row_end) const {
    const TileLoader<Tile, kThreads> loader(rows.at(shared_.batch, 0, head), rows.token_stride, args_.width,
                                            thread_index());
    loader.load(tile, first_row, row_end);
  }
  __device__ __forceinline__ void load_keys() {
    load(shared_.key, args_.key, shared_.kv_head, shared_.first_key, args_.key_len);
    load(shared_.value, args_.value, shared_.kv_head, shared_.first_key, args_.key_len);
    cp_async_commit();
  }
  __device__ __forceinline__ void load_queries(const Step& step, Stage& stage) {
    load(stage.query, args_.query, query_head(step), step.first_query(), args_.query_len);
    load(stage.grad_out, args_.grad_out, query_head(step), step.first_query(), args_.query_len);
    cp_async_commit();
  }

  // A thread's lse or delta of a step. Rows past the end have P = 1, finite, and dO = Q = 0: they give nothing.
  __device__ __forceinline__ float load_row(const Step& step) const {
    static_assert(kThreads >= 2 * kQueries, "a thread loads at most one number of a row");
    const int thread = thread_index();
    const std::int32_t query = step.first_query() + thread % kQueries;
    if (thread >= 2 * kQueries || query >= args_.query_len) return 0;
    const Rows<const float>& rows = thread < kQueries ? args_.lse : args_.delta;
    return *rows.at(shared_.batch, query, query_head(step));
  }
  __device__ __forceinline__ void store_row(float loaded, std::int32_t number) {
    const int thread = thread_index();
    if (thread >= 2 * kQueries) return;
    if (!is_finite(loaded)) shared_.dead = number;
    if (thread < kQueries) loaded = loaded == -INFINITY ? INFINITY : loaded == INFINITY ? NAN : loaded * kLog2E;
    shared_.lse_delta[thread] = loaded;
  }
  // Makes zeros of dead rows, which have seen nothing and may hold anything, and of those that saw what is not finite:
  // what P = 0 is multiplied by must be finite.
  __device__ __forceinline__ void bury(Stage& stage) {
    constexpr int kChunks = kDim / QueryTile::kChunkElements;
    float *const lse = shared_.lse_delta, *const delta = lse + kQueries;
    for (int i = thread_index(); i < kQueries * kChunks; i += kThreads) {
      const int row = i / kChunks;
      if (lse[row] < INFINITY && delta[row] != INFINITY) continue;
      stage.query.chunks[i] = stage.grad_out.chunks[i] = {0, 0, 0, 0};
      if (lse[row] == INFINITY) {
        delta[row] = 0;
      } else {
        lse[row] = NAN;
      }
    }
    __syncthreads();
  }

  // Computing.

  // One warp's patch of keys times queries, transposed: left K or V, right Q or dO.
  __device__ __forceinline__ void multiply_rows(const KeyTile& left, const QueryTile& right, Scores& scores) const {
    const Place at = place();
    const std::uint32_t left_at = KeyTile::at(left.start_a(at.lane), at.key, 0);
    const std::uint32_t right_at = QueryTile::at(right.start_b(at.lane), at.side * Tiling::kSideQueries, 0);
    add_product<Element, kDim / 16>(
        scores, [&](int step, int block, auto& a) { ldmatrix(a, KeyTile::at(left_at, block * 16, step * 16)); },
        [&](int step, int pair, auto& b) { ldmatrix(b, QueryTile::at(right_at, pair * 16, step * 16)); });
  }

  // P^T of the warp's patch.
  __device__ __forceinline__ void find_probabilities(const Step& step, const Stage& stage, Scores& p) {
#pragma unroll
    for (auto& block : p) {
#pragma unroll
      for (auto& fragment : block) fragment[0] = fragment[1] = fragment[2] = fragment[3] = 0;
    }
    multiply_rows(shared_.key, stage.query, p);
    const int column = first_column();
#pragma unroll
    for (int n = 0; n < 2 * kQuerySteps; ++n) {
      const float2 lse = *reinterpret_cast<const float2*>(&shared_.lse_delta[column + n * 8]);
#pragma unroll
      for (int block = 0; block < kKeyBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[block][n][i] = fmaf(p[block][n][i], args_.scale_log2, i % 2 == 0 ? -lse.x : -lse.y);
        }
      }
    }
    if (!step.full()) hide_unseen(step, p);
#pragma unroll
    for (auto& block : p) {
#pragma unroll
      for (auto& fragment : block) {
#pragma unroll
        for (float& x : fragment) x = exp2_approx(x);
      }
    }
  }

  // dS^T from P^T and dP^T, which becomes it; rounded and shared.
  __device__ __forceinline__ void find_grad_scores(const Step& step, const Scores& p, Scores& ds, Packed& left) {
    const int column = first_column();
#pragma unroll
    for (int n = 0; n < 2 * kQuerySteps; ++n) {
      const float2 delta = *reinterpret_cast<const float2*>(&shared_.lse_delta[kQueries + column + n * 8]);
#pragma unroll
      for (int block = 0; block < kKeyBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          ds[block][n][i] = p[block][n][i] * (ds[block][n][i] - (i % 2 == 0 ? delta.x : delta.y));
        }
      }
    }
    if (!step.full()) {  // dP and delta of a hidden pair may be anything
#pragma unroll
      for (int n = 0; n < 2 * kQuerySteps; ++n) {
#pragma unroll
        for (int block = 0; block < kKeyBlocks; ++block) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (p[block][n][i] == 0.0f) ds[block][n][i] = 0.0f;
          }
        }
      }
    }
    pack_and_share(ds, left, shared_.grad_scores);
  }

  // The first query of the tile that a lane has scores of.
  static __device__ __forceinline__ int first_column() {
    const Place at = place();
    return at.side * Tiling::kSideQueries + at.lane % 4 * 2;
  }

  // Rounds scores: as a left operand, and for the other warps.
  __device__ __forceinline__ void pack_and_share(const Scores& scores, Packed& left, ScoreTile& tile) const {
    const Place at = place();
#pragma unroll
    for (int step = 0; step < kQuerySteps; ++step) {
#pragma unroll
      for (int block = 0; block < kKeyBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // rows lane / 4 + 8 (i % 2), columns 8 (i / 2) on
          const float* pair = &scores[block][step * 2 + i / 2][i % 2 * 2];
          left[step][block][i] = pack<Element>(pair[0], pair[1]);
        }
        tile.store(left[step][block], at.lane, at.key + block * 16, at.side * Tiling::kSideQueries + step * 16);
      }
    }
  }

  // Scores of keys that a query does not see become -inf, whose power of 2 is 0. Rows past the end give nothing anyway
  // and take the last row's range.
  __device__ __forceinline__ void hide_unseen(const Step& step, Scores& exponents) const {
    const Place at = place();
    const std::int32_t first_query = step.first_query() + at.side * Tiling::kSideQueries + at.lane % 4 * 2;
    const std::int32_t first_key = shared_.first_key + at.key + at.lane / 4;
#pragma unroll
    for (int n = 0; n < 2 * kQuerySteps; ++n) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        int4 range = {0, INT_MAX, 0, 0};  // as KeyRange
        if (args_.ranges != nullptr) {
          const std::int32_t query = min(first_query + n * 8 + odd, args_.query_len - 1);
          range = __ldg(reinterpret_cast<const int4*>(args_.ranges + query));
        }
        range.y = min(range.y, args_.key_len);
        range.w = min(range.w, args_.key_len);
#pragma unroll
        for (int row = 0; row < 2 * kKeyBlocks; ++row) {
          const std::int32_t key = first_key + row * 8;
          const bool sees = (range.x <= key && key < range.y) || (range.z <= key && key < range.w);
          if (!sees) exponents[row / 2][n][row % 2 * 2 + odd] = -INFINITY;
        }
      }
    }
  }

  // dV += P^T dO or dK += dS^T Q, over the queries of the warp's own side and then over those of the others.
  template <typename LoadA>
  __device__ __forceinline__ void add_side(KeyGrads& grads, const QueryTile& right, const Place& at, int first_query,
                                           const LoadA& load_a) {
    const std::uint32_t right_at = QueryTile::at(right.start_b_trans(at.lane), first_query, 0);
    add_product<Element, kQuerySteps>(grads, load_a, [&](int step, int pair, auto& b) {
      ldmatrix_trans(b, QueryTile::at(right_at, step * 16, at.side * Tiling::kSideColumns + pair * 16));
    });
  }
  __device__ __forceinline__ void add_own(KeyGrads& grads, const QueryTile& right, const Packed& left) {
    const Place at = place();
    add_side(grads, right, at, at.side * Tiling::kSideQueries, [&](int step, int block, auto& a) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = left[step][block][i];
    });
  }
  __device__ __forceinline__ void add_others(KeyGrads& grads, const QueryTile& right, const ScoreTile& left) {
    const Place at = place();
    const std::uint32_t left_at = ScoreTile::at(left.start_a(at.lane), at.key, 0);
#pragma unroll
    for (int other = 1; other < Tiling::kSides; ++other) {
      const int first_query = (at.side + other) % Tiling::kSides * Tiling::kSideQueries;
      add_side(grads, right, at, first_query, [&](int step, int block, auto& a) {
        ldmatrix(a, ScoreTile::at(left_at, block * 16, first_query + step * 16));
      });
    }
  }

  // dQ = dS K of the query tile, added in global memory.
  __device__ __forceinline__ void add_query_grads(const Step& step) {
    QueryGrads grads = {};
    const Place at = place();
    const int first_row = at.warp % Tiling::kDqRowWarps * Tiling::kDqRows;
    const int first_column = at.warp / Tiling::kDqRowWarps * Tiling::kDqColumns;
    const std::uint32_t left_at = shared_.grad_scores.start_a_trans(at.lane);
    const std::uint32_t right_at = shared_.key.start_b_trans(at.lane);
    add_product<Element, kKeys / 16>(
        grads,
        [&](int k, int block, auto& a) { ldmatrix_trans(a, ScoreTile::at(left_at, k * 16, first_row + block * 16)); },
        [&](int k, int pair, auto& b) { ldmatrix_trans(b, KeyTile::at(right_at, k * 16, first_column + pair * 16)); });

    cp_async_wait<0>();
    arrive(shared_.loaded);  // of this step nothing is read any more: nobody waits for additions

    if (args_.turns != nullptr) {
      std::int32_t* const turn = turn_of(step);
      if (at.lane == 0) wait_for_turn(turn, step.visited.turn);
      if (thread_index() == 0) shared_.turn = turn;
      __syncwarp();
    }
    const std::int32_t first_query = step.first_query() + first_row;
    float* const rows = args_.grad_query.at(shared_.batch, first_query + at.lane / 4, query_head(step)) + first_column;
    for_each_four(grads, rows, args_.grad_query.token_stride, args_.query_len - first_query, args_.width - first_column,
                  args_.scale, reduce_add);
  }

  // The counter of the query tile and head of a step.
  __device__ __forceinline__ std::int32_t* turn_of(const Step& step) const {
    const std::int64_t line =
        static_cast<std::int64_t>(shared_.batch) * args_.kv_heads * args_.group + query_head(step);
    return args_.turns + line * args_.query_tiles + step.visited.tile_full / 2;
  }
  // Behind a barrier: so what all threads have added comes before what one of them releases.
  __device__ __forceinline__ void pass_turn() const {
    if (args_.turns != nullptr && thread_index() == 0) release_turn(shared_.turn);
  }

  // put(address, sums) for each four sums that lie side by side in a warp's patch, times the factor. `rows` is where
  // its first column is, lane / 4 rows further down; no row from row_end on is touched, and no column from column_end
  // on.
  template <int kBlocks, int kFragments, typename T, typename Put>
  static __device__ __forceinline__ void for_each_four(const float (&sums)[kBlocks][kFragments][4], T* rows,
                                                       std::int64_t stride, std::int32_t row_end,
                                                       std::int32_t column_end, float factor, const Put& put) {
    const int lane = thread_index() % kWarp;
    const bool odd = lane % 2 != 0;
    // Two lanes exchange halves of two n8 blocks, so that each has four columns side by side: an even lane of the
    // first block, an odd one of the second.
    const int column = lane % 4 / 2 * 4 + (odd ? 8 : 0);
    rows += column;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool row_within = block * 16 + half * 8 + lane / 4 < row_end;
#pragma unroll
        for (int n = 0; n < kFragments; n += 2) {
          const float* first = &sums[block][n][half * 2];
          const float* second = &sums[block][n + 1][half * 2];
          const float x = __shfl_xor_sync(kAllLanes, odd ? first[0] : second[0], 1);
          const float y = __shfl_xor_sync(kAllLanes, odd ? first[1] : second[1], 1);
          const float4 four = odd ? float4{x, y, second[0], second[1]} : float4{first[0], first[1], x, y};
          if (row_within && column + n * 8 < column_end) {
            put(rows + n * 8, factor * four.x, factor * four.y, factor * four.z, factor * four.w);
          }
        }
        rows += 8 * stride;
      }
    }
  }

  // dK and dV leave for the rows that this block alone owns.
  __device__ __forceinline__ void finish() const {
    switch (args_.key_gradients) {
      case KeyGradients::add:
        put_key_grads(args_.grad_value, args_.grad_key, reduce_add);
        break;
      case KeyGradients::store:
        put_key_grads(args_.grad_value, args_.grad_key, store_four);
        break;
      case KeyGradients::round:
        put_key_grads(args_.value_out, args_.key_out, round_four<Element>);
    }
  }
  template <typename T, typename Put>
  __device__ __forceinline__ void put_key_grads(const Rows<T>& value, const Rows<T>& key, const Put& put) const {
    put_rows(value, grad_value_, 1.0f, put);
    put_rows(key, grad_key_, args_.scale, put);
  }
  template <typename T, typename Put>
  __device__ __forceinline__ void put_rows(const Rows<T>& into, const KeyGrads& grads, float factor,
                                           const Put& put) const {
    const Place at = place();
    const std::int32_t first_key = shared_.first_key + at.key;
    const int first_column = at.side * Tiling::kSideColumns;
    T* const rows = into.at(shared_.batch, first_key + at.lane / 4, shared_.kv_head) + first_column;
    for_each_four(grads, rows, into.token_stride, args_.key_len - first_key, args_.width - first_column, factor, put);
  }

  const BackwardArgs<Element>& args_;
  Shared& shared_;
  KeyGrads grad_value_ = {}, grad_key_ = {};
};

// Share: SmShare, or nothing.
template <typename Element, typename Tiling, typename... Share>
__global__ void __launch_bounds__(Tiling::kThreads, Tiling::kBlocksPerProcessor)
    backward_kernel(const __grid_constant__ BackwardArgs<Element> args, Share... share) {
  using Block = BackwardBlock<Element, Tiling>;
  extern __shared__ __align__(128) std::byte memory[];
  auto& shared = *reinterpret_cast<typename Block::Shared*>(memory);
  if constexpr (sizeof...(Share) == 0) {
    if (thread_index() == 0) shared.ticket = args.ticket != nullptr ? atomicAdd(args.ticket, 1) : block_index();
    Block(args, shared).run();
  } else {
    for_each_ticket(share..., shared.ticket, [&] {
      Block block(args, shared);
      block.run();
      block.retire();
    });
  }
}

}  // namespace orrery::kernels::cuda
