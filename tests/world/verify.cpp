// Verification finds what is wrong and passes what is right: results into which a fault is planted, inputs that hold
// NaNs and infinities, inputs whose answer is exact, and many ranks.
#include "orrery/verify.hpp"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/element.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"
#include "verify/samples.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void store(const TensorView& t, std::int64_t b, std::int64_t n, std::int64_t h, std::int64_t c, double value) {
  std::byte* at = t.at(b, n, h) + c * static_cast<std::int64_t>(size_of(t.dtype));
  const auto single = static_cast<float>(value);
  const std::uint16_t half = t.dtype == Dtype::bf16 ? float_to_bf16(single) : float_to_fp16(single);
  if (t.dtype == Dtype::fp32) {
    std::memcpy(at, &single, sizeof single);
  } else {
    std::memcpy(at, &half, sizeof half);
  }
}

// A rank's tensors before and after its run, to be changed.
using Change = std::function<void(const AttentionTensors&, const std::vector<std::int64_t>& positions)>;

struct Case {
  AttentionProblem problem;
  std::string layout = "zigzag";
  int world_size = 2;
  bool backward = true;
  Recipe recipe = Recipe::normal;
  VerifyMode mode = VerifyMode::full;
  Recipe compared = recipe;  // with the closed form, or with float64
  Change inputs = {}, results = {};
};

Verification verify_case(const Case& c) {
  const AttentionProblem& problem = c.problem;
  const Plan plan = make_plan(problem, Topology::single_node(c.world_size), {c.layout, "ring", c.backward});
  Verification found;
  run_in_process(c.world_size, {.timeout_seconds = 60}, [&](World& world) {
    const Tensors owned(plan, world.rank(), 1, 0, c.recipe);
    const AttentionTensors tensors = owned.views();
    const auto own = positions(plan.layout, world.rank());
    if (c.inputs) c.inputs(tensors, own);
    Attention attention(world, plan);
    const DeviceMemory workspace({}, attention.workspace_bytes(), "a test");
    attention.bind(tensors, {workspace.data(), workspace.size()});
    attention.forward();
    if (c.backward) attention.backward();
    if (c.results) c.results(tensors, own);
    const Verification mine = verify(world, plan, tensors, c.backward, {c.mode, 3, {}, c.compared});
    if (world.rank() == 0) found = mine;
  });
  return found;
}

// Sets one element of a row, wherever it lies.
Change set(TensorView AttentionTensors::*which, std::int64_t position, std::int64_t head, double value) {
  return [=](const AttentionTensors& tensors, const std::vector<std::int64_t>& positions) {
    for (std::size_t token = 0; token < positions.size(); ++token) {
      if (positions[token] == position) store(tensors.*which, 0, static_cast<std::int64_t>(token), head, 0, value);
    }
  };
}

const std::vector<std::string> kMasks = {"full", "causal", "window:17,9", "causal+window:23+sinks:5",
                                         "causal+window:20+sinks:2+prefix:9+documents:61,0,50,82"};

// Of one long row in float64, over all keys and over all but those of a tile: out and, last, lse.
struct LongRow {
  std::vector<double> right, less;
};

LongRow long_row(const AttentionProblem& problem, const AttentionTensors& t, const Sample& s, Range tile) {
  const auto dim = static_cast<std::size_t>(problem.head_dim);
  std::vector<double> query(dim), key(dim), value(dim);
  LongRow row = {std::vector<double>(dim + 1), std::vector<double>(dim + 1)};
  load_row(t.query, s.batch, s.position, s.head, query);
  for (std::int64_t j = 0; j < problem.seq_len; ++j) {
    load_row(t.key, s.batch, j, s.head, key);
    load_row(t.value, s.batch, j, s.head, value);
    double score = 0;
    for (std::size_t c = 0; c < dim; ++c) score += query[c] * key[c];
    const double weight = std::exp(problem.effective_scale() * score);
    const bool in_tile = j >= tile.begin && j < tile.end;
    for (std::vector<double>* sums : {&row.right, in_tile ? nullptr : &row.less}) {
      if (sums == nullptr) continue;
      for (std::size_t c = 0; c < dim; ++c) (*sums)[c] += weight * value[c];
      sums->back() += weight;
    }
  }
  for (std::vector<double>* sums : {&row.right, &row.less}) {
    for (std::size_t c = 0; c < dim; ++c) (*sums)[c] /= sums->back();
    sums->back() = std::log(sums->back());
  }
  return row;
}

// 131,072 tokens in bf16, each of which sees all. Only the sampled rows are computed, and rounded as a kernel rounds
// its results; then out and lse of each of these are without a tile of 64 keys.
std::pair<Verification, Verification> with_and_without_a_tile() {
  constexpr Dtype dtype = Dtype::bf16;
  AttentionProblem problem = problem_of("full", 131072, {}, dtype);
  problem.heads = problem.kv_heads = 1;
  problem.head_dim = 16;
  const Plan plan = make_plan(problem, Topology::single_node(1), {"contiguous", "ring"});
  std::pair<Verification, Verification> found;
  run_in_process(1, {.timeout_seconds = 60}, [&](World& world) {
    const auto tensor = [&] { return OwnedTensor(dtype, 1, problem.seq_len, 1, problem.head_dim, 0); };
    OwnedTensor q = tensor(), k = tensor(), v = tensor(), out = tensor(), lse(Dtype::fp32, 1, problem.seq_len, 1, 1, 0);
    const AttentionTensors t{q.view(), k.view(), v.view(), out.view(), lse.view(), {}, {}, {}, {}};
    const Span whole{0, problem.seq_len, 1};
    generate(t.query, Generated::query, 1, {&whole, 1});
    generate(t.key, Generated::key, 1, {&whole, 1});
    generate(t.value, Generated::value, 1, {&whole, 1});
    const auto samples = choose_samples(plan, 1, VerifyMode::sample, 3);
    std::vector<LongRow> rows;
    for (const Sample& s : samples)
      rows.push_back(long_row(problem, t, s, {s.position / 64 * 64, s.position / 64 * 64 + 64}));
    const auto verify_with = [&](std::vector<double> LongRow::*which) {
      for (std::size_t i = 0; i < samples.size(); ++i) {
        const std::vector<double>& row = rows[i].*which;
        for (std::int64_t c = 0; c < problem.head_dim; ++c)
          store(t.out, 0, samples[i].position, 0, c, row[static_cast<std::size_t>(c)]);
        store(t.lse, 0, samples[i].position, 0, 0, row.back());
      }
      return verify(world, plan, t, false, VerifyMode::sample, 3);
    };
    found = {verify_with(&LongRow::right), verify_with(&LongRow::less)};
  });
  return found;
}

}  // namespace

TEST_CASE("a tile of 64 keys that is missing at 131,072 tokens is found, in out and in lse") {
  const auto [with, without] = with_and_without_a_tile();
  INFO(with.complaint());
  REQUIRE(with.right());
  REQUIRE_FALSE(without.right());
  REQUIRE(without.out_row_rms > 2 * without.limits.out_row_rms);
  REQUIRE(without.out_rel_l2 > 2 * without.limits.out_rel_l2);
  REQUIRE(without.lse_row_rms > 10 * without.limits.lse_row_rms);
  REQUIRE(without.lse_max_abs > 10 * without.limits.lse_max_abs);
  REQUIRE(without.complaint().find("out_row_rms is") != std::string::npos);
}

TEST_CASE("one wrong row is found in every result, and counts once") {
  const std::pair<TensorView AttentionTensors::*, std::string> results[] = {{&AttentionTensors::out, "out"},
                                                                            {&AttentionTensors::lse, "lse"},
                                                                            {&AttentionTensors::grad_query, "dq"},
                                                                            {&AttentionTensors::grad_key, "dk"},
                                                                            {&AttentionTensors::grad_value, "dv"}};
  for (const auto& [which, name] : results) {
    for (const double value : {3.0, kInfinity, std::nan("")}) {
      for (const Recipe recipe : {Recipe::normal, Recipe::counting}) {
        INFO(name << " " << value << " " << to_string(recipe));
        const Verification v =
            verify_case({.problem = problem_of("causal", 150), .recipe = recipe, .results = set(which, 77, 1, value)});
        REQUIRE_FALSE(v.right());
        REQUIRE(v.wrong == 1);
        REQUIRE(v.worst.find(name + " at batch 0 position 77 head 1") == 0);
        REQUIRE(v.complaint().find("1 of 600 rows and 300 keys are wrong") == 0);
      }
    }
  }
}

TEST_CASE("a row that stands in the place of its neighbour is found") {
  const auto swap = [](const AttentionTensors& t, const std::vector<std::int64_t>& positions) {
    if (positions.empty() || positions.front() != 0) return;
    for (std::int64_t c = 0; c < t.out.width; ++c) {
      const double first = load_element(t.out, 0, 30, 2, c), second = load_element(t.out, 0, 31, 2, c);
      store(t.out, 0, 30, 2, c, second);
      store(t.out, 0, 31, 2, c, first);
    }
  };
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    REQUIRE(verify_case({.problem = problem_of("causal", 150, {}, dtype), .results = swap}).wrong == 2);
  }
}

TEST_CASE("a NaN or an infinity of the inputs sets apart the rows that it reaches by the mask, and no others") {
  struct Reach {
    TensorView AttentionTensors::*which;
    std::int64_t position;
    std::int64_t rows, keys;  // that it reaches
  };
  // Documents of 61, 89 tokens, causal. Query heads 2 and 3 read KV head 1.
  const Reach reaches[] = {
      {&AttentionTensors::query, 70, 1, 10},      // its own row; the keys that row sees
      {&AttentionTensors::grad_out, 70, 1, 10},   // the same
      {&AttentionTensors::key, 140, 2 * 10, 89},  // the queries after it, of two heads; the keys that the last sees
      {&AttentionTensors::value, 60, 2, 61},
  };
  for (const Reach& reach : reaches) {
    for (const double value : {std::nan(""), kInfinity, -kInfinity}) {
      INFO(reach.position << " " << value);
      const Verification v = verify_case(
          {.problem = problem_of("causal+documents:61,89", 150), .inputs = set(reach.which, reach.position, 1, value)});
      INFO(v.complaint());
      REQUIRE(v.right());
      REQUIRE(v.nonfinite == reach.rows + reach.keys);
      REQUIRE(v.rows == 600 - reach.rows);
      REQUIRE(v.keys == 300 - reach.keys);
      REQUIRE(v.out_rel_l2 < 1e-5);
    }
  }
}

TEST_CASE("a wrong row beside a NaN of the inputs is still found") {
  const Case c = {.problem = problem_of("causal+documents:61,89", 150),
                  .inputs = set(&AttentionTensors::value, 100, 0, std::nan("")),
                  .results = set(&AttentionTensors::out, 20, 0, 3.0)};
  REQUIRE(verify_case(c).wrong == 1);
}

TEST_CASE("counting inputs have their closed form under every mask, dtype and layout") {
  for (const std::string& mask : kMasks) {
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
      for (const char* layout : {"contiguous", "zigzag", "striped:8"}) {
        INFO(mask << " " << to_string(dtype) << " " << layout);
        AttentionProblem problem = problem_of(mask, 193, {}, dtype);
        problem.batch = 2;
        const Verification v =
            verify_case({.problem = problem, .layout = layout, .world_size = 3, .recipe = Recipe::counting});
        INFO(v.complaint());
        REQUIRE(v.right());
        REQUIRE(v.rows == 2 * 193 * 4);
        REQUIRE(v.dk_rel_l2 == 0);
      }
    }
  }
}

TEST_CASE("the closed form of counting inputs is what float64 computes") {
  for (const std::string& mask : kMasks) {
    for (const int head_dim : {1, 5, 40}) {
      INFO(mask << " d" << head_dim);
      AttentionProblem problem = problem_of(mask, 193);
      problem.batch = 2;
      problem.head_dim = head_dim;
      const Verification v = verify_case({.problem = problem, .recipe = Recipe::counting, .compared = Recipe::normal});
      INFO(v.complaint());
      REQUIRE(v.right());
      const Verification closed = verify_case({.problem = problem, .recipe = Recipe::counting});
      INFO(closed.complaint());
      REQUIRE(closed.right());
      REQUIRE(std::abs(closed.dq_rel_l2 - v.dq_rel_l2) < 1e-9);
      REQUIRE(std::abs(closed.dv_rel_l2 - v.dv_rel_l2) < 1e-9);
    }
  }
}

TEST_CASE("one key that a row of counting inputs misses is found") {
  // What out would be without one of the row's keys: an integer less, over one key less.
  const auto miss = [](const AttentionTensors& t, const std::vector<std::int64_t>& positions) {
    for (std::size_t token = 0; token < positions.size(); ++token) {
      if (positions[token] != 1000) continue;
      for (std::int64_t c = 0; c < t.out.width; ++c) {
        const double sum = load_element(t.out, 0, static_cast<std::int64_t>(token), 0, c) * 1001;
        const double key = counting_value(Generated::value, 0, 500, 0, c, t.out.width);
        store(t.out, 0, static_cast<std::int64_t>(token), 0, c, (sum - key) / 1000);
      }
    }
  };
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    const Case c = {.problem = problem_of("causal", 1200, {}, dtype),
                    .backward = false,
                    .recipe = Recipe::counting,
                    .results = miss};
    REQUIRE(verify_case(c).wrong == 1);
  }
}

namespace {

// Counts what a rank is given by the others.
class CountedWorld : public World {
 public:
  explicit CountedWorld(World& world) : world_(world) {}
  int rank() const override { return world_.rank(); }
  const Topology& topology() const override { return world_.topology(); }
  double timeout_seconds() const override { return world_.timeout_seconds(); }
  std::string_view link_name() const override { return world_.link_name(); }
  Records all_gather(std::span<const std::byte> mine) override {
    auto all = world_.all_gather(mine);
    for (const auto& record : all) bytes += record.size();
    return all;
  }
  void all_reduce(std::span<double> values, Reduction reduction) override {
    world_.all_reduce(values, reduction);
    bytes += values.size_bytes();
  }
  Link& link() override { return world_.link(); }
  StreamLink& stream_link(Device device, int lanes) override { return world_.stream_link(device, lanes); }
  void abort(ErrorCode code, std::string_view message) noexcept override { world_.abort(code, message); }

  std::size_t bytes = 0;

 private:
  World& world_;
};

// Bytes that rank 0 is given for each row drawn, and how many rows that are.
std::pair<double, std::int64_t> bytes_a_row(int world_size) {
  const AttentionProblem problem = problem_of("causal", 4 * world_size);
  const Plan plan = make_plan(problem, Topology::single_node(world_size), {"contiguous", "ring"});
  std::pair<double, std::int64_t> result;
  run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
    const auto tensor = [&](int heads) { return OwnedTensor(Dtype::fp32, 1, 4, heads, problem.head_dim, 0); };
    OwnedTensor q = tensor(4), k = tensor(2), v = tensor(2), out = tensor(4), lse(Dtype::fp32, 1, 4, 4, 1, 0);
    const auto spans = plan.layout.shard(world.rank());
    generate(q.view(), Generated::query, 1, spans);
    generate(k.view(), Generated::key, 1, spans);
    generate(v.view(), Generated::value, 1, spans);
    for (OwnedTensor* t : {&out, &lse}) generate(t->view(), Generated::value, 2, spans);
    CountedWorld counted(world);
    const AttentionTensors tensors{q.view(), k.view(), v.view(), out.view(), lse.view(), {}, {}, {}, {}};
    const Verification found = verify(counted, plan, tensors, false, VerifyMode::sample);
    if (world.rank() == 0) {
      result = {static_cast<double>(counted.bytes) / static_cast<double>(found.rows), found.rows};
    }
  });
  return result;
}

}  // namespace

TEST_CASE("what a rank is given to verify a row does not grow with the number of ranks, nor do the rows of each") {
  const auto [few_bytes, few_rows] = bytes_a_row(4);
  const auto [many_bytes, many_rows] = bytes_a_row(128);
  REQUIRE(few_rows == 96);
  REQUIRE(many_rows == 128);
  REQUIRE(many_bytes < 2 * few_bytes);
}

TEST_CASE("the first element that is not finite is found") {
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    OwnedTensor t(dtype, 2, 3, 2, 5, 1);
    const Span whole{0, 3, 1};
    generate(t.view(), Generated::value, 1, {&whole, 1});
    REQUIRE_FALSE(find_nonfinite(t.view()));
    store(t.view(), 1, 2, 1, 4, std::nan(""));
    store(t.view(), 1, 1, 1, 3, -kInfinity);
    const auto met = find_nonfinite(t.view());
    REQUIRE(met);
    REQUIRE(std::vector<std::int64_t>{met->batch, met->token, met->head, met->column} ==
            std::vector<std::int64_t>{1, 1, 1, 3});
    REQUIRE(met->value == -kInfinity);
  }
}
