// The backward pass of one block of key-values on Hopper's tensor cores, for a head_dim of up to 64 or 128. It means
// what the portable kernel means (kernels/cuda/attend_backward.cuh), step by step the same products with the scores
// transposed:
//
//   S^T = K Q^T             P^T = 2^(S^T scale log2(e) - lse log2(e))        0 where a query does not see a key
//   dP^T = V dO^T           dS^T = P^T (dP^T - delta)
//   dV += P^T dO            dK += dS^T Q            dQ += dS K               dK and dQ times the scale when they leave
//
// A thread block takes tiles of 128 keys of a KV head, one after the other, by tickets. K and V of a tile stay in
// shared memory and dK and dV in registers, while the query tiles that see these keys pass by, each with every query
// head of the group. Three warpgroups of 128 threads have roles, joined by barriers in shared memory:
//
//   producer, warp 0      finds the steps (backward_walk.cuh); copies Q and dO of a step into one of two stages,
//                         and K and V at the first step of a tile; brings lse, delta and, where not every query of the
//                         step sees every key, bits that say who sees whom
//   producer, warps 1, 2  carriers, one a consumer: add its half of dQ in global memory, when it is its turn
//   consumers 0 and 1     have 64 keys each: S^T and dP^T, hence P^T and dS^T in registers, which are the left operands
//                         of their dV and dK as they lie. dS goes through shared memory, for dQ needs all 128 keys: a
//                         consumer computes half of dQ, 64 x 64
//
// A step of a consumer, and what runs beside it on the tensor cores:
//
//   wait for Q      S^T, dP^T begin                     | the other consumer's dV, dK, dQ
//   wait for S^T    P^T, rounded                        | dP^T
//   wait for dP^T   dS^T, rounded, shared               | the other's S^T, dP^T
//                   dV, dK of this step and dQ of the step before begin
//   wait for dQ     to its carrier                      | the other's dV, dK, dQ
//
// dQ lags a step behind, so that a consumer never waits for dS that the other has only just begun: they run in opposite
// phases, one on the tensor cores while the other is busy with powers and roundings. A token, passed when S^T and dP^T
// have begun, keeps them apart.
//
// Whose turn it is to add to dQ follows the portable kernel's rule, and so does the proof that every wait ends: tickets
// rise, a block works on one tile at a time and in the order of its tickets, so the lowest unfinished ticket is being
// worked on and waits for nobody.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/backward_args.cuh"
#include "kernels/cuda/backward_visits.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sm90/backward_walk.cuh"
#include "kernels/cuda/sm90/ptx.cuh"

namespace orrery::kernels::cuda::sm90 {

template <int kHeadDim_>
struct BackwardTiling {
  static constexpr int kHeadDim = kHeadDim_, kQueries = 128 * 64 / kHeadDim, kKeys = 128;
  static constexpr int kStages = 2;  // of Q and dO, and of dS
  static constexpr int kConsumers = 2, kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
  // dQ of a step is kQueries x kHeadDim; a consumer's half are 64 of the queries, or else 64 of the columns.
  static constexpr bool kHalvesAreRows = kQueries == 128;
  // dV begins while dS^T is being found. With 128 queries there are no registers for that.
  static constexpr bool kEarlyValue = kQueries == 64;

  static_assert(kHeadDim == 64 || kHeadDim == 128, "two consumers share dQ in halves of 64 x 64");
  static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 504, "an SM has 65536 registers");
};

struct BackwardArgs {
  CUtensorMap query, grad_out;          // boxes of kQueries rows x 64 columns
  CUtensorMap key, value;               // boxes of kKeys rows x 64 columns
  Rows<const float> lse, delta;         // [batch, query_len, heads]
  CUtensorMap grad_query;               // boxes of 64 rows x 32 columns of floats
  Rows<float> grad_key, grad_value;     // [batch, key_len, kv_heads, width]
  const KeyRange* ranges;               // [query_len], or null
  const RangeBounds* bounds;            // [ceil(query_len / kRangeTile)], or null
  std::int32_t batch, kv_heads, group;  // heads = kv_heads * group
  std::int32_t query_len, key_len, width;
  std::int32_t tickets;     // tiles of keys x batch x kv_heads
  float scale, scale_log2;  // scale_log2 = scale * log2(e)
  std::int32_t* ticket;     // how many have been drawn
  std::int32_t* turns;      // [batch, heads, query tiles]: adders that are done, in parts; null: any order will do
};

// What a block does with a query tile and head; a tile of -1 says that there is no more to do.
struct BackwardStep {
  std::int32_t tile, head, turn;
  std::int32_t key_tile, batch, kv_head;
  bool full, first, last;  // full: every query sees every key. first, last: of the tile of keys
};

template <typename Element, typename Tiling>
struct BackwardShared {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kPanels = kDim / kPanelColumns;
  static constexpr int kSteps = 8;  // a carrier may be some steps behind
  static constexpr int kWords = kKeys / 32;
  static constexpr int kGradColumns = 32;

  // Panels of 64 columns, swizzled (sm90/ptx.cuh).
  struct alignas(1024) KeyTile {
    Element panels[kPanels][kKeys][kPanelColumns];
  };
  struct alignas(1024) QueryTile {
    Element panels[kPanels][kQueries][kPanelColumns];
  };
  // dS^T: a row a key.
  struct alignas(1024) ScoreTile {
    Element panels[kQueries / kPanelColumns][kKeys][kPanelColumns];
  };
  // A consumer's half of dQ on its way: panels of 32 columns, swizzled.
  struct alignas(1024) QueryGrads {
    float panels[2][64][kGradColumns];
  };
  struct StageRows {
    float lse[kQueries];                   // times log2(e); +inf for a row that gets and gives nothing
    float delta[kQueries];                 // times the scale, where dS is
    std::uint32_t seen[kWords][kQueries];  // bit k of word i: the query sees key 32 i + k; unless the step is full
  };

  KeyTile key, value;
  QueryTile query[Tiling::kStages], grad_out[Tiling::kStages];
  ScoreTile grad_scores[Tiling::kStages];
  QueryGrads grad_query[Tiling::kConsumers];
  StageRows rows[Tiling::kStages];
  BackwardStep steps[kSteps];  // step n is [n % kSteps]
  Walk walk;

  // Who arrives, and for whom. Warps arrive by one lane.
  Barrier keys_full, keys_empty;                 // the producer's copies; the consumers' warps, at the end of a tile
  Barrier rows_full[Tiling::kStages];            // the producer: rows and the step
  Barrier query_full[Tiling::kStages];           // the producer's copies
  Barrier query_empty[Tiling::kStages];          // the consumers' warps: Q and rows are no longer needed
  Barrier grad_out_full[Tiling::kStages];        // the producer's copies
  Barrier grad_out_empty[Tiling::kStages];       // the consumers' warps
  Barrier scores_full[Tiling::kStages];          // the consumers' warps: dS is there
  Barrier scores_empty[Tiling::kStages];         // the consumers' warps: dQ is computed
  Barrier grad_query_full[Tiling::kConsumers];   // the warps of one consumer
  Barrier grad_query_empty[Tiling::kConsumers];  // its carrier
};

// Numbers what comes round in a ring: the k-th use of n places is use k / n of place k % n.
template <int kPlaces>
struct Ring {
  std::uint32_t number = 0;

  __device__ __forceinline__ std::uint32_t place() const { return number % kPlaces; }
  // Of the barrier that says that the place is full, and, for those who fill it, that it is empty.
  __device__ __forceinline__ std::uint32_t full() const { return number / kPlaces & 1; }
  __device__ __forceinline__ std::uint32_t empty() const { return full() ^ 1; }
};

template <typename Element, typename Tiling>
class BackwardBlock {
  static constexpr int kDim = Tiling::kHeadDim, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
  static constexpr int kConsumerWarps = kWarpgroup / kWarp, kAllConsumerWarps = Tiling::kConsumers * kConsumerWarps;
  using Rule = VisitRule<kQueries, kKeys>;
  using Stage = Ring<Tiling::kStages>;
  // dS is multiplied by the scale before it is rounded, which costs nothing, or dQ and dK are when they leave: small
  // numbers of bf16 are as exact as others, those of fp16 are not.
  static constexpr bool kScaledScores = std::is_same_v<Element, __nv_bfloat16>;

 public:
  using Shared = BackwardShared<Element, Tiling>;

  __device__ __forceinline__ BackwardBlock(const BackwardArgs& args, Shared& shared) : args_(args), shared_(shared) {}

  __device__ __forceinline__ void run() {
    if (thread_index() == 0) {
      prepare_barriers();
      for (const CUtensorMap* map : {&args_.query, &args_.grad_out, &args_.key, &args_.value, &args_.grad_query}) {
        prefetch_map(map);
      }
    }
    __syncthreads();
    // The same in all lanes, and known to be.
    const int warp = __shfl_sync(kAllLanes, thread_index() / kWarp, 0);
    if (warp < kConsumerWarps) {
      fewer_registers<Tiling::kProducerRegisters>();
      if (warp == 0) produce();
      if (warp == 1 || warp == 2) carry(warp - 1);
    } else {
      more_registers<Tiling::kConsumerRegisters>();
      consume(warp / kConsumerWarps - 1);
    }
  }

 private:
  __device__ __forceinline__ void prepare_barriers() {
    barrier_init(shared_.keys_full, 1);
    barrier_init(shared_.keys_empty, kAllConsumerWarps);
    for (int i = 0; i < Tiling::kStages; ++i) {
      barrier_init(shared_.rows_full[i], 1);
      barrier_init(shared_.query_full[i], 1);
      barrier_init(shared_.query_empty[i], kAllConsumerWarps);
      barrier_init(shared_.grad_out_full[i], 1);
      barrier_init(shared_.grad_out_empty[i], kAllConsumerWarps);
      barrier_init(shared_.scores_full[i], kAllConsumerWarps);
      barrier_init(shared_.scores_empty[i], kAllConsumerWarps);
    }
    for (int i = 0; i < Tiling::kConsumers; ++i) {
      barrier_init(shared_.grad_query_full[i], kConsumerWarps);
      barrier_init(shared_.grad_query_empty[i], 1);
    }
    fence_barrier_init();
  }

  // What the warp's lanes have done comes before the arrival of one of them.
  static __device__ __forceinline__ void arrive_as_warp(Barrier& barrier) {
    __syncwarp();
    if (thread_index() % kWarp == 0) barrier_arrive(barrier);
  }

  __device__ __forceinline__ BackwardStep& step(std::uint32_t number) const {
    return shared_.steps[number % Shared::kSteps];
  }
  __device__ __forceinline__ std::int32_t* turn_of(const BackwardStep& step) const {
    const std::int64_t line = static_cast<std::int64_t>(step.batch) * args_.kv_heads * args_.group + step.head;
    return args_.turns + line * ((args_.query_len - 1) / kQueries + 1) + step.tile;
  }

  // The producer.

  __device__ __forceinline__ void produce() {
    std::uint32_t number = 0;
    Ring<1> tile;
    while (true) {
      std::int32_t ticket = 0;
      if (thread_index() == 0) ticket = atomicAdd(args_.ticket, 1);
      ticket = __shfl_sync(kAllLanes, ticket, 0);
      if (ticket >= args_.tickets) break;
      // The lowest tiles of keys first, those of all heads side by side: under a causal mask they have the most to do.
      const std::int32_t unit = ticket % (args_.batch * args_.kv_heads);
      const std::int32_t key_tile = ticket / (args_.batch * args_.kv_heads);
      const std::int32_t batch = unit / args_.kv_heads, kv_head = unit % args_.kv_heads;

      const Rule rule = {args_.bounds, args_.query_len, args_.key_len, key_tile};
      shared_.walk.begin(rule);
      Step now = shared_.walk.next(rule, args_.group);
      if (now.tile < 0) continue;
      bool first = true;
      while (now.tile >= 0) {
        const Step next = shared_.walk.next(rule, args_.group);
        put({now.tile, kv_head * args_.group + now.head, now.turn, key_tile, batch, kv_head, now.full, first,
             next.tile < 0},
            number, tile);
        now = next;
        first = false;
        ++number;
      }
      ++tile.number;
    }
    const Stage ring = {number};
    barrier_wait(shared_.query_empty[ring.place()], ring.empty());
    if (thread_index() == 0) step(number).tile = -1;
    arrive_as_warp(shared_.rows_full[ring.place()]);
  }

  // Brings what a step needs.
  __device__ __forceinline__ void put(const BackwardStep& now, std::uint32_t number, const Ring<1>& tile) {
    constexpr int kLaneRows = kQueries / kWarp;
    const Stage stage = {number};
    const int lane = thread_index() % kWarp;
    const std::int32_t first_query = now.tile * kQueries;
    // Rows past the end get and give nothing.
    float lse[kLaneRows], delta[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const std::int32_t query = first_query + i * kWarp + lane;
      const bool within = query < args_.query_len;
      lse[i] = within ? *args_.lse.at(now.batch, query, now.head) : INFINITY;
      delta[i] = within ? *args_.delta.at(now.batch, query, now.head) : 0.0f;
    }
    barrier_wait(shared_.query_empty[stage.place()], stage.empty());
    if (elect_one()) {
      copy_tile(shared_.query[stage.place()], args_.query, shared_.query_full[stage.place()], first_query, now.head,
                now.batch);
    }
    if (now.first) {
      barrier_wait(shared_.keys_empty, tile.empty());
      if (elect_one()) {
        barrier_expect(shared_.keys_full, 2 * static_cast<int>(sizeof(typename Shared::KeyTile)));
        copy_panels(shared_.key, args_.key, shared_.keys_full, now.key_tile * kKeys, now.kv_head, now.batch,
                    kEvictFirst);
        copy_panels(shared_.value, args_.value, shared_.keys_full, now.key_tile * kKeys, now.kv_head, now.batch,
                    kEvictFirst);
      }
    }
    barrier_wait(shared_.grad_out_empty[stage.place()], stage.empty());
    if (elect_one()) {
      copy_tile(shared_.grad_out[stage.place()], args_.grad_out, shared_.grad_out_full[stage.place()], first_query,
                now.head, now.batch);
    }
    auto& rows = shared_.rows[stage.place()];
    bool dead = false;
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = i * kWarp + lane;
      const bool unseeing = lse[i] == -INFINITY;
      dead |= unseeing;
      rows.lse[row] = unseeing ? INFINITY : lse[i] * kLog2E;
      rows.delta[row] = unseeing ? 0.0f : kScaledScores ? delta[i] * args_.scale : delta[i];
      if (!now.full) put_seen(rows, row, first_query, now.key_tile * kKeys);
    }
    if (lane == 0) step(number) = now;
    if (__any_sync(kAllLanes, dead)) bury(number);
    arrive_as_warp(shared_.rows_full[stage.place()]);
  }

  template <typename Tile>
  __device__ __forceinline__ void copy_panels(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                              std::int32_t head, std::int32_t batch, std::uint64_t keep) const {
#pragma unroll
    for (int panel = 0; panel < Shared::kPanels; ++panel) {
      copy_box(shared_address(tile.panels[panel]), &map, full, panel * kPanelColumns, row, head, batch, keep);
    }
  }
  template <typename Tile>
  __device__ __forceinline__ void copy_tile(Tile& tile, const CUtensorMap& map, Barrier& full, std::int32_t row,
                                            std::int32_t head, std::int32_t batch) const {
    barrier_expect(full, static_cast<int>(sizeof(Tile)));
    copy_panels(tile, map, full, row, head, batch, kEvictNormal);
  }

  // The low bits, `count` of them, none to all.
  static __device__ __forceinline__ std::uint32_t low_bits(std::int32_t count) {
    return count <= 0 ? 0 : count >= 32 ? ~0u : (1u << count) - 1;
  }
  // Rows past the end take the last row's range.
  __device__ __forceinline__ void put_seen(typename Shared::StageRows& rows, int row, std::int32_t first_query,
                                           std::int32_t first_key) const {
    int4 range = {0, INT_MAX, 0, 0};  // as KeyRange
    if (args_.ranges != nullptr) {
      range = __ldg(reinterpret_cast<const int4*>(args_.ranges + min(first_query + row, args_.query_len - 1)));
    }
    range.y = min(range.y, args_.key_len);
    range.w = min(range.w, args_.key_len);
#pragma unroll
    for (int word = 0; word < Shared::kWords; ++word) {
      const std::int32_t key = first_key + word * 32;
      rows.seen[word][row] =
          (low_bits(range.y - key) & ~low_bits(range.x - key)) | (low_bits(range.w - key) & ~low_bits(range.z - key));
    }
  }

  // Makes zeros of dead rows, which have seen nothing and may hold anything: what P = 0 is multiplied by must be
  // finite.
  __device__ __forceinline__ void bury(std::uint32_t number) {
    const Stage stage = {number};
    const int lane = thread_index() % kWarp;
    barrier_wait(shared_.query_full[stage.place()], stage.full());
    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    __syncwarp();
    for (int row = 0; row < kQueries; ++row) {
      if (shared_.rows[stage.place()].lse[row] != INFINITY) continue;
#pragma unroll
      for (int panel = 0; panel < Shared::kPanels; ++panel) {
        reinterpret_cast<std::uint32_t*>(shared_.query[stage.place()].panels[panel][row])[lane] = 0;
        reinterpret_cast<std::uint32_t*>(shared_.grad_out[stage.place()].panels[panel][row])[lane] = 0;
      }
    }
    fence_async_proxy();
  }

  // A carrier: a warp, each of whose lanes adds two of the 64 rows.

  __device__ __forceinline__ void carry(int consumer) {
    const int lane = thread_index() % kWarp;
    for (Ring<1> ring;; ++ring.number) {
      barrier_wait(shared_.grad_query_full[consumer], ring.full());
      const BackwardStep now = step(ring.number);
      if (now.tile < 0) break;
      std::int32_t* turn = nullptr;
      if (args_.turns != nullptr) {
        turn = turn_of(now);
        if (lane == 0) wait_for_turn(turn, now.turn * Tiling::kConsumers);
        __syncwarp();
      }
      const std::int32_t row = now.tile * kQueries + (Tiling::kHalvesAreRows ? consumer * 64 : 0);
      const std::int32_t column = Tiling::kHalvesAreRows ? 0 : consumer * 64;
      if (lane == 0) {
#pragma unroll
        for (int panel = 0; panel < 2; ++panel) {
          reduce_box(&args_.grad_query, shared_address(shared_.grad_query[consumer].panels[panel]),
                     column + panel * Shared::kGradColumns, row, now.head, now.batch);
        }
      }
      bulk_commit();
      bulk_wait_read<0>();
      arrive_as_warp(shared_.grad_query_empty[consumer]);
      if (turn != nullptr) {
        bulk_wait<0>();
        __syncwarp();
        if (lane == 0) release_turn(turn);
      }
    }
    bulk_wait<0>();
  }

  // A consumer.

  using Scores = float[kQueries / 2];
  using Packed = std::uint32_t[kQueries / 4];
  using KeyGrads = float[kDim / 2];
  using QueryGrads = float[32];

  static constexpr int kKeyPanelBytes = kKeys * kPanelRowBytes, kQueryPanelBytes = kQueries * kPanelRowBytes;

  __device__ __forceinline__ void consume(int consumer) {
    if (consumer == 1) pass_token(consumer);
    KeyGrads grad_key, grad_value;
    std::uint32_t number = 0;  // of the step
    Ring<1> tile;
    while (wait_for_step(number)) {
      barrier_wait(shared_.keys_full, tile.full());
      bool first = true, last;
      do {
        if (!first) wait_for_step(number);
        last = step(number).last;
        take_step(consumer, number, first, grad_key, grad_value);
        ++number;
        first = false;
      } while (!last);
      QueryGrads grad_query;
      multiply_grad_query(consumer, number - 1, grad_query);
      wgmma_wait<0>();
      keep(grad_query);
      finish_grad_query(consumer, number - 1, grad_query);
      arrive_as_warp(shared_.keys_empty);
      if constexpr (!kScaledScores) scale(grad_key);
      add_keys(args_.grad_value, consumer, step(number - 1), grad_value);
      add_keys(args_.grad_key, consumer, step(number - 1), grad_key);
      ++tile.number;
    }
    // The carrier reads that there is no more to do.
    barrier_wait(shared_.grad_query_empty[consumer], Ring<1>{number}.empty());
    arrive_as_warp(shared_.grad_query_full[consumer]);
  }

  // Whether there is one.
  __device__ __forceinline__ bool wait_for_step(std::uint32_t number) const {
    const Stage ring = {number};
    barrier_wait(shared_.rows_full[ring.place()], ring.full());
    return step(number).tile >= 0;
  }
  // The token: who has it may begin S^T and dP^T.
  static __device__ __forceinline__ void await_token(int consumer) {
    named_barrier_sync(kTokens + consumer, 2 * kWarpgroup);
  }
  static __device__ __forceinline__ void pass_token(int consumer) {
    named_barrier_arrive(kTokens + (1 - consumer), 2 * kWarpgroup);
  }

  __device__ __forceinline__ void take_step(int consumer, std::uint32_t number, bool first, KeyGrads& grad_key,
                                            KeyGrads& grad_value) {
    const Stage stage = {number};
    const auto& rows = shared_.rows[stage.place()];
    const auto& query = shared_.query[stage.place()];
    const auto& grad_out = shared_.grad_out[stage.place()];
    const bool full = step(number).full;
    Scores p, ds;
    Packed left, packed;

    barrier_wait(shared_.query_full[stage.place()], stage.full());
    await_token(consumer);
    wgmma_fence();
    multiply_rows(p, shared_.key, consumer, query);
    wgmma_commit();
    barrier_wait(shared_.grad_out_full[stage.place()], stage.full());
    wgmma_fence();
    multiply_rows(ds, shared_.value, consumer, grad_out);
    wgmma_commit();
    pass_token(consumer);

    wgmma_wait<1>();
    keep(p);
    find_probabilities(p, rows, full, consumer);
    if constexpr (Tiling::kEarlyValue) {
      pack_scores(left, p);
      wgmma_fence();
      multiply_columns(grad_value, left, grad_out, !first);
      wgmma_commit();
      wgmma_wait<1>();
    } else {
      wgmma_wait<0>();
    }
    keep(ds);
    find_grad_scores(ds, p, rows);
    if constexpr (!Tiling::kEarlyValue) pack_scores(left, p);
    pack_scores(packed, ds);

    barrier_wait(shared_.scores_empty[stage.place()], stage.empty());
    share(shared_.grad_scores[stage.place()], packed, consumer);
    fence_async_proxy();
    arrive_as_warp(shared_.scores_full[stage.place()]);

    wgmma_fence();
    if constexpr (!Tiling::kEarlyValue) {
      multiply_columns(grad_value, left, grad_out, !first);
      wgmma_commit();
    }
    multiply_columns(grad_key, packed, query, !first);
    wgmma_commit();
    // At the first step of a tile too, of what the tile before has left: so the code does not branch amid products.
    QueryGrads grad_query;
    multiply_grad_query(consumer, number - 1, grad_query);
    wgmma_wait<2>();
    keep(left);
    keep(grad_value);
    arrive_as_warp(shared_.grad_out_empty[stage.place()]);
    wgmma_wait<1>();
    keep(packed);
    keep(grad_key);
    arrive_as_warp(shared_.query_empty[stage.place()]);
    wgmma_wait<0>();
    keep(grad_query);
    if (!first) finish_grad_query(consumer, number - 1, grad_query);
  }

  // A consumer's 64 keys times all queries of the step, transposed: left K or V, right Q or dO.
  __device__ __forceinline__ void multiply_rows(Scores& d, const typename Shared::KeyTile& left, int consumer,
                                                const typename Shared::QueryTile& right) const {
    const MatrixDescriptor a =
        depth_along_rows(shared_address(&left) + static_cast<std::uint32_t>(consumer * 64 * kPanelRowBytes));
    const MatrixDescriptor b = depth_along_rows(shared_address(&right));
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      Wgmma<Element, kQueries>::shared(d, a.plus(k / 4 * kKeyPanelBytes + k % 4 * 32),
                                       b.plus(k / 4 * kQueryPanelBytes + k % 4 * 32), k > 0);
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
  __device__ __forceinline__ void multiply_grad_query(int consumer, std::uint32_t number, QueryGrads& d) {
    const Stage ring = {number};
    barrier_wait(shared_.scores_full[ring.place()], ring.full());
    const int score_panel = Tiling::kHalvesAreRows ? consumer : 0, key_panel = Tiling::kHalvesAreRows ? 0 : consumer;
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
  __device__ __forceinline__ void finish_grad_query(int consumer, std::uint32_t number, QueryGrads& grad_query) {
    arrive_as_warp(shared_.scores_empty[Stage{number}.place()]);
    give_grad_query(consumer, number, grad_query);
  }

  // The first query of the tile, of every eight, that a lane has scores of.
  static __device__ __forceinline__ int first_column() {
    return thread_index() % 4 * 2;
  }
  // Of a consumer's 64 keys, or of the rows of its half of dQ: a lane has this one, and the eighth behind it.
  static __device__ __forceinline__ int first_row() {
    return thread_index() % kWarpgroup / kWarp * 16 + thread_index() % kWarp / 4;
  }

  __device__ __forceinline__ void find_probabilities(Scores& p, const typename Shared::StageRows& rows, bool full,
                                                     int consumer) const {
    const int column = first_column();
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 lse = *reinterpret_cast<const float2*>(&rows.lse[column + j * 8]);
      p[4 * j] = fmaf(p[4 * j], args_.scale_log2, -lse.x);
      p[4 * j + 1] = fmaf(p[4 * j + 1], args_.scale_log2, -lse.y);
      p[4 * j + 2] = fmaf(p[4 * j + 2], args_.scale_log2, -lse.x);
      p[4 * j + 3] = fmaf(p[4 * j + 3], args_.scale_log2, -lse.y);
    }
    if (!full) {
      const int key = consumer * 64 + first_row();
      const std::uint32_t* words = &rows.seen[key / 32][column];
      const std::uint32_t one = 1u << key % 32, eighth = one << 8;
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
        const uint2 seen = *reinterpret_cast<const uint2*>(words + j * 8);
        if ((seen.x & one) == 0) p[4 * j] = -INFINITY;
        if ((seen.y & one) == 0) p[4 * j + 1] = -INFINITY;
        if ((seen.x & eighth) == 0) p[4 * j + 2] = -INFINITY;
        if ((seen.y & eighth) == 0) p[4 * j + 3] = -INFINITY;
      }
    }
#pragma unroll
    for (float& x : p) x = exp2_approx(x);
  }

  __device__ __forceinline__ float minus_delta(float dp, float delta) const {
    return kScaledScores ? fmaf(dp, args_.scale, -delta) : dp - delta;
  }
  // dS^T from P^T and dP^T, which becomes it.
  __device__ __forceinline__ void find_grad_scores(Scores& ds, const Scores& p,
                                                   const typename Shared::StageRows& rows) const {
    const int column = first_column();
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      const float2 delta = *reinterpret_cast<const float2*>(&rows.delta[column + j * 8]);
      ds[4 * j] = p[4 * j] * minus_delta(ds[4 * j], delta.x);
      ds[4 * j + 1] = p[4 * j + 1] * minus_delta(ds[4 * j + 1], delta.y);
      ds[4 * j + 2] = p[4 * j + 2] * minus_delta(ds[4 * j + 2], delta.x);
      ds[4 * j + 3] = p[4 * j + 3] * minus_delta(ds[4 * j + 3], delta.y);
    }
  }

  // As the left operand of a product over the queries.
  static __device__ __forceinline__ void pack_scores(Packed& packed, const Scores& scores) {
#pragma unroll
    for (int i = 0; i < kQueries / 4; ++i) packed[i] = pack<Element>(scores[2 * i], scores[2 * i + 1]);
  }

  // Writes a consumer's 64 rows of dS^T.
  __device__ __forceinline__ void share(typename Shared::ScoreTile& tile, const Packed& packed, int consumer) const {
    const int lane = thread_index() % kWarp, warp = thread_index() % kWarpgroup / kWarp;
    const int row = consumer * 64 + warp * 16 + lane % 16;
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
  __device__ __forceinline__ void give_grad_query(int consumer, std::uint32_t number, QueryGrads& grads) {
    if constexpr (!kScaledScores) scale(grads);
    barrier_wait(shared_.grad_query_empty[consumer], Ring<1>{number}.empty());
    // A lane has two of the four floats of a chunk; chunks are exchanged by chunk ^= row % 8.
    const int row = first_row(), quad = thread_index() % 4;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      auto& panel = shared_.grad_query[consumer].panels[j / 4];
      const int column = ((j % 4 * 2 + quad / 2) ^ (row % 8)) * 4 + quad % 2 * 2;
      *reinterpret_cast<float2*>(&panel[row][column]) = {grads[4 * j], grads[4 * j + 1]};
      *reinterpret_cast<float2*>(&panel[row + 8][column]) = {grads[4 * j + 2], grads[4 * j + 3]};
    }
    fence_async_proxy();
    arrive_as_warp(shared_.grad_query_full[consumer]);
  }

  template <int kCount>
  __device__ __forceinline__ void scale(float (&grads)[kCount]) const {
#pragma unroll
    for (float& x : grads) x *= args_.scale;
  }

  // Adds dK or dV to the rows that this block alone owns; by reductions, which need not wait for what is there.
  __device__ __forceinline__ void add_keys(const Rows<float>& into, int consumer, const BackwardStep& now,
                                           const KeyGrads& grads) const {
    const int quad = thread_index() % 4;
    const bool odd = quad % 2 != 0;
    // Two lanes exchange halves of two blocks of 8 columns, so that each has four columns side by side: an even lane of
    // the first block, an odd one of the second.
    const int column = quad / 2 * 4 + (odd ? 8 : 0);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int32_t key = now.key_tile * kKeys + consumer * 64 + first_row() + half * 8;
      float* const row = into.at(now.batch, key, now.kv_head) + column;
#pragma unroll
      for (int j = 0; j < kDim / 8; j += 2) {
        const float *first = &grads[4 * j + 2 * half], *second = &grads[4 * j + 4 + 2 * half];
        const float x = __shfl_xor_sync(kAllLanes, odd ? first[0] : second[0], 1);
        const float y = __shfl_xor_sync(kAllLanes, odd ? first[1] : second[1], 1);
        const float4 sums = odd ? float4{x, y, second[0], second[1]} : float4{first[0], first[1], x, y};
        if (key < args_.key_len && column + j * 8 < args_.width) {
          reduce_add(row + j * 8, sums.x, sums.y, sums.z, sums.w);
        }
      }
    }
  }

  static constexpr int kTokens = 1;  // and 2: named barriers, one a consumer

  const BackwardArgs& args_;
  Shared& shared_;
};

template <typename Element, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    attend_backward_kernel(const __grid_constant__ BackwardArgs args) {
  using Block = BackwardBlock<Element, Tiling>;
  extern __shared__ __align__(1024) std::byte memory[];
  Block(args, *reinterpret_cast<typename Block::Shared*>(memory)).run();
}

}  // namespace orrery::kernels::cuda::sm90
