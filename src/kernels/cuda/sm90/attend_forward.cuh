// The forward kernel of 16-bit tensors on Hopper, with the division of labour of FlashAttention-3 (Shah et al.,
// 2024). A block of threads stays on its multiprocessor and takes one tile of query rows of one head after the other.
// Its first warpgroup is the *producer*: one thread of it has the copy unit bring Q, and then the tiles of keys and
// values that these rows see, each into the oldest stage as soon as that is free, and so runs ahead into the next
// tile of rows. The others are *consumers* of 64 rows each. A visit of a consumer to a tile of keys:
//
//   S = Q K^T;  maxima, raised where scores are far above them;  P = 2^(S - maximum);  accumulator += P V
//
// What hides the exponentials are other products, a consumer's own and those of the others: it issues the next S and
// this P V together, and finds the next P while the tensor cores are busy with P V. So a consumer's registers hold the
// accumulator, P, and S or the P that it becomes, and a tile of keys is as wide as that allows.
//
//   consumer 0   | S0 | softmax | S1 P V0 | softmax | S2 P V1 | softmax |  ...
//   consumer 1        | S0 | softmax | S1 P V0 | softmax | S2 P V1 | softmax |  ...
//   consumer 2             | S0 | softmax | S1 P V0 | softmax | S2 P V1 |  ...
//
// The rest of the first warpgroup are *inspectors*. Values of a tile of keys that the mask cuts do not land with the
// consumers but with them, who make such a tile finite before it counts as full (nonfinite.cuh). They are ahead of the
// consumers as the copies are, so that nobody waits for them.
//
// Products of a warpgroup are issued hardly faster than they run, so what a visit costs a consumer is its products and
// its softmax, one after the other; with three consumers the tensor cores stay busy as long as both together take at
// most three times the products. Hence the care for the order of instructions in softmax().
#pragma once

#include <cuda.h>

#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/attend.hpp"
#include "kernels/cuda/forward_rows.cuh"
#include "kernels/cuda/forward_tiles.cuh"
#include "kernels/cuda/nonfinite.cuh"
#include "kernels/cuda/sm90/ptx.cuh"
#include "kernels/cuda/sm90/ring.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kDim_, int kKeyTile_, int kConsumers_, bool kTurns_>
struct ForwardTiling {
  static constexpr int kDim = kDim_, kKeyTile = kKeyTile_, kConsumers = kConsumers_;
  static constexpr bool kTurns = kTurns_;                   // whether consumers take turns at issuing
  static constexpr int kStages = 2;                         // of keys, and of values
  static constexpr int kQueryStages = kDim <= 128 ? 2 : 1;  // shared memory has room for no more of the wider
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kConsumerRows = 64, kQueryTile = kConsumers * kConsumerRows;
  static constexpr int kPanels = (kDim + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kRowBlocks = 1, kColumnBlocks = kDim / 8;          // of a warp, as ForwardRows has them
  static constexpr int kScores = kKeyTile / 2, kAccumulators = kDim / 2;  // registers of a thread
  static constexpr int kProducerRegisters = kConsumers == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 232 : 160;
  // Whether a row's maximum may lag as far as its sum allows (slack_of()), or else by one: with two consumers the first
  // makes code with fewer powers beside P V at 128, and with spills at 256.
  static constexpr bool kSlackBySum = kConsumers == 3;
  static_assert(kConsumers == 2 || kConsumers == 3, "registers are divided for these");
  static_assert(kConsumerRows == kRangeTile, "range bounds are given for the rows of a consumer");
  static_assert(kDim % 32 == 0 && kDim <= 256, "an accumulator is one product wide, and out leaves by 32 columns");
  static_assert(kKeyTile % 16 == 0, "a product's depth goes in steps of 16");
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kThreads / 8 * 8 * (1 + kConsumers),
                "registers are redistributed, not made");
};

inline constexpr int kInspectors = kWarpgroup / kWarp - 1;

// What the kernel is called with. Maps: boxes of kQueryTile rows of query, of kKeyTile of key and value.
struct ForwardLaunch {
  AttendForward call;
  ForwardOrder order;
  float scale_log2;      // positive; scores times it are in units of log 2
  std::int32_t tickets;  // tiles of rows
  std::int32_t* ticket;  // 0 at the launch
};
struct ForwardMaps {
  CUtensorMap query, key, value;
};

// Of a consumer: [begin, end), from the first visit of which any of its rows sees something to the last, or all visits
// where consumers take turns, for one that passes a visit over would stop the others; [clear_begin, clear_end), visits
// that need no mask, which may be none or reach beyond those.
struct OwnVisits {
  int begin, end, clear_begin, clear_end;
};

// A tile of rows: whose they are, and the keys they see, all together and by consumer. `batch` -1: there are no more.
template <typename Tiling>
struct ForwardWork {
  int first_row, batch, head;
  KeyVisits<Tiling::kKeyTile> visits;
  OwnVisits own[Tiling::kConsumers];
  bool made_finite = false;  // any of its tiles of values
};

// A tile of values to be inspected: its stage, or -1 when there are no more, and the tile of rows that it is for.
struct Inspection {
  int stage;
  std::uint32_t tile;
};

template <typename Element, int kRows, int kPanels>
struct alignas(kSwizzleRows* kPanelRowBytes) Panels {
  Element elements[kPanels][kRows][kPanelColumns];
  static constexpr int kPanelBytes = kRows * kPanelRowBytes, kBytes = kPanels * kPanelBytes;
  static_assert(kPanelBytes % (kSwizzleRows * kPanelRowBytes) == 0, "panels keep to the swizzle's period");
};

template <typename Element, typename Tiling>
struct ForwardShared {
  Panels<Element, Tiling::kQueryTile, Tiling::kPanels> query[Tiling::kQueryStages];
  Panels<Element, Tiling::kKeyTile, Tiling::kPanels> key[Tiling::kStages], value[Tiling::kStages];
  ForwardWork<Tiling> work[Tiling::kQueryStages + 1];  // a consumer reads it even when it has given back Q
  float nowhere;                                       // of stay_behind()
  Inspection inspections[Tiling::kStages];
  Barrier query_full[Tiling::kQueryStages], query_empty[Tiling::kQueryStages];
  Barrier key_full[Tiling::kStages], key_empty[Tiling::kStages];
  Barrier value_full[Tiling::kStages], value_empty[Tiling::kStages];
  Barrier landed[Tiling::kStages];  // values to be inspected

  __device__ __forceinline__ ForwardWork<Tiling>& work_at(std::uint32_t tile) {
    return work[tile % (Tiling::kQueryStages + 1)];
  }
};

template <typename Element, typename Tiling>
class ForwardProducer {
  using Shared = ForwardShared<Element, Tiling>;

 public:
  __device__ __forceinline__ ForwardProducer(Shared& shared, const ForwardLaunch& launch, const ForwardMaps& maps)
      : shared_(shared), launch_(launch), maps_(maps) {}

  // By one thread.
  __device__ __forceinline__ void run() {
    prefetch_map(&maps_.query);
    prefetch_map(&maps_.key);
    prefetch_map(&maps_.value);
    int ticket = block_index();
    while (ticket < launch_.tickets) {
      const ForwardWork<Tiling> work = work_of(ticket);
      if (work.visits.count() > 0 || launch_.call.first || launch_.call.last) bring_tile(work);
      // Not before the tile's last copies are on their way: what a block holds, no other can begin.
      ticket = static_cast<int>(gridDim.x) + atomicAdd(launch_.ticket, 1);
    }
    hand_over({0, -1, 0, {}});
    barrier_wait(shared_.value_empty[value_.place()], value_.empty());
    inspect(-1);
  }

 private:
  // Q, and then the keys and values, as they are wanted.
  __device__ __forceinline__ void bring_tile(const ForwardWork<Tiling>& work) {
    hand_over(work);
    const int visits = work.visits.count();
    for (int visit = 0; visit < visits; ++visit) {
      barrier_wait(shared_.key_empty[key_.place()], key_.empty());
      bring(shared_.key, shared_.key_full[key_.place()], maps_.key, key_, work, visit);
      if (visit > 0) bring_value(work, visit - 1);
    }
    if (visits > 0) bring_value(work, visits - 1);
  }
  __device__ __forceinline__ void bring_value(const ForwardWork<Tiling>& work, int visit) {
    barrier_wait(shared_.value_empty[value_.place()], value_.empty());
    const bool cut = launch_.call.key_ranges.rows != nullptr && !work.visits.is_full(work.visits.first_key(visit));
    if (cut) return bring(shared_.value, inspect(static_cast<int>(value_.place())), maps_.value, value_, work, visit);
    Barrier& full = shared_.value_full[value_.place()];
    bring(shared_.value, full, maps_.value, value_, work, visit);
    for (int i = 1; i < kInspectors; ++i) barrier_arrive(full);  // for them
  }
  // Tells the inspectors what comes next, for the stage that value_ is at, which is empty: so they are done with all
  // that came as many tiles ago as there are stages, and the place is theirs again. The copy is to arrive at what it
  // returns.
  __device__ __forceinline__ Barrier& inspect(int stage) {
    shared_.inspections[inspection_.place()] = {stage, query_.number - 1};
    Barrier& landed = shared_.landed[inspection_.place()];
    ++inspection_.number;
    if (stage < 0) barrier_arrive(landed);
    return landed;
  }

  __device__ __forceinline__ ForwardWork<Tiling> work_of(int ticket) const {
    const AttendForward& call = launch_.call;
    const auto [query_tile, unit] = launch_.order.place(ticket);
    const int heads = static_cast<int>(call.query.heads);
    const int query_len = static_cast<int>(call.query.tokens), key_len = static_cast<int>(call.key.tokens);
    ForwardWork<Tiling> work = {query_tile * Tiling::kQueryTile, unit / heads, unit % heads,
                                key_visits<Tiling>(call.key_ranges, query_tile, query_len, key_len)};
#pragma unroll
    for (int consumer = 0; consumer < Tiling::kConsumers; ++consumer) {
      const int tile = query_tile * Tiling::kConsumers + consumer;
      RangeBounds rows = {0, key_len, 0, key_len, INT_MAX, 0};
      if (tile * kRangeTile >= query_len) {
        rows = {INT_MAX, 0, 0, INT_MAX, INT_MAX, 0};
      } else if (call.key_ranges.rows != nullptr) {
        rows = call.key_ranges.tiles[tile];
      }
      work.own[consumer] = own_visits(work.visits, rows);
    }
    return work;
  }

  // Of a consumer whose rows are bounded so, in closed form, for all copies wait for this.
  static __device__ __forceinline__ OwnVisits own_visits(const KeyVisits<Tiling::kKeyTile>& visits,
                                                         const RangeBounds& rows) {
    constexpr int kKeys = Tiling::kKeyTile;
    const auto tile_past = [](int key) { return key / kKeys + (key % kKeys != 0); };
    const int shift = visits.sink_tiles - visits.tile, count = visits.count();  // shift: from tiles of keys to visits
    OwnVisits own{0, count, max(tile_past(rows.full_begin) + shift, visits.sink_tiles), rows.full_end / kKeys + shift};
    if constexpr (Tiling::kTurns) return own;
    own.begin = count, own.end = 0;
    const auto add = [&own](int begin, int end) {
      if (begin < end) own.begin = min(own.begin, begin), own.end = max(own.end, end);
    };
    const auto add_keys = [&](int first, int last) {
      if (first >= last) return;
      add(max(first / kKeys - visits.sink_tile, 0), min(tile_past(last) - visits.sink_tile, visits.sink_tiles));
      add(max(first / kKeys + shift, visits.sink_tiles), min(tile_past(last) + shift, count));
    };
    add_keys(rows.first, rows.last);
    add_keys(rows.sink_first, rows.sink_last);
    if (own.begin >= own.end) own.begin = own.end = 0;
    return own;
  }

  // Tells the consumers, who see `work` when query_full says that Q is there too.
  __device__ __forceinline__ void hand_over(const ForwardWork<Tiling>& work) {
    const std::uint32_t stage = query_.place();
    barrier_wait(shared_.query_empty[stage], query_.empty());
    shared_.work_at(query_.number) = work;
    ++query_.number;
    Barrier& full = shared_.query_full[stage];
    if (work.batch < 0 || work.visits.count() == 0) {
      barrier_arrive(full);
      return;
    }
    barrier_expect(full, shared_.query[0].kBytes);
#pragma unroll
    for (int panel = 0; panel < Tiling::kPanels; ++panel) {
      copy_box(shared_address(shared_.query[stage].elements[panel]), &maps_.query, full, panel * kPanelColumns,
               work.first_row, work.head, work.batch, kEvictFirst);
    }
  }

  // Into the place of the ring, which is empty; `landed` tells when it is there.
  template <typename Tile>
  __device__ __forceinline__ void bring(Tile (&tiles)[Tiling::kStages], Barrier& landed, const CUtensorMap& map,
                                        Ring<Tiling::kStages>& ring, const ForwardWork<Tiling>& work, int visit) {
    const int kv_head = work.head / static_cast<int>(launch_.call.query.heads / launch_.call.key.heads);
    barrier_expect(landed, Tile::kBytes);
#pragma unroll
    for (int panel = 0; panel < Tiling::kPanels; ++panel) {
      copy_box(shared_address(tiles[ring.place()].elements[panel]), &map, landed, panel * kPanelColumns,
               work.visits.first_key(visit), kv_head, work.batch, kEvictLast);
    }
    ++ring.number;
  }

  Shared& shared_;
  const ForwardLaunch& launch_;
  const ForwardMaps& maps_;
  Ring<Tiling::kQueryStages> query_;
  Ring<Tiling::kStages> key_, value_, inspection_;
};

// By the warps of the producer's warpgroup behind the first.
template <typename Element, typename Tiling>
__device__ __forceinline__ void inspect_values(ForwardShared<Element, Tiling>& shared) {
  constexpr int kThreads = kInspectors * kWarp;
  const int thread = thread_index() - kWarp;
  for (Ring<Tiling::kStages> ring;; ++ring.number) {
    barrier_wait_idle(shared.landed[ring.place()], ring.full());
    const auto [stage, tile] = shared.inspections[ring.place()];
    if (stage < 0) return;
    auto* const chunks = reinterpret_cast<uint4*>(shared.value[stage].elements);
    constexpr int kChunks = shared.value[0].kBytes / static_cast<int>(sizeof(uint4));
    if (make_finite<Element, Infinity::zero>(chunks, kChunks, thread, kThreads)) {
      shared.work_at(tile).made_finite = true;
      fence_async_proxy();
    }
    __syncwarp();
    if (thread % kWarp == 0) barrier_arrive(shared.value_full[stage]);
  }
}

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

template <typename Element, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    attend_forward_kernel(const __grid_constant__ ForwardLaunch launch, const __grid_constant__ ForwardMaps maps) {
  using Shared = ForwardShared<Element, Tiling>;
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);

  const int warpgroup = __shfl_sync(kAllLanes, thread_index() / kWarpgroup, 0);
  if (thread_index() == 0) {
    constexpr int kConsumerWarps = Tiling::kConsumers * kWarpgroup / kWarp;
    for (int stage = 0; stage < Tiling::kQueryStages; ++stage) {
      barrier_init(shared.query_full[stage], 1);
      barrier_init(shared.query_empty[stage], kConsumerWarps);
    }
    for (int stage = 0; stage < Tiling::kStages; ++stage) {
      barrier_init(shared.key_full[stage], 1);
      barrier_init(shared.value_full[stage], kInspectors);
      barrier_init(shared.landed[stage], 1);
      barrier_init(shared.key_empty[stage], kConsumerWarps);
      barrier_init(shared.value_empty[stage], kConsumerWarps);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (warpgroup == 0) {
    fewer_registers<Tiling::kProducerRegisters>();
    if (thread_index() >= kWarp) {
      inspect_values(shared);
    } else if (elect_one()) {
      ForwardProducer<Element, Tiling>(shared, launch, maps).run();
    }
  } else {
    more_registers<Tiling::kConsumerRegisters>();
    ForwardConsumer<Element, Tiling>(shared, launch, warpgroup - 1).run();
  }
}

}  // namespace orrery::kernels::cuda::sm90
