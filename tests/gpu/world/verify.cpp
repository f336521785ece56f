// Verification of tensors that lie on a device: it says what verification says of the same tensors in host memory, of
// right results and of wrong ones.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/float_formats.hpp"
#include "support/catch.hpp"
#include "support/problem.hpp"
#include "world/tensors.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr Device kDevice{DeviceKind::cuda, 0};

struct Both {
  Verification host, device;
};

enum class Result { none, out, lse, dq, dk, dv, value };  // value: an input, which gets a NaN

// Adds 4 to the first column of a token's rows, of all heads and batches.
void spoil(const TensorView& t, std::int64_t token) {
  for (std::int64_t b = 0; b < t.batch; ++b) {
    for (std::int64_t h = 0; h < t.heads; ++h) {
      std::byte* at = t.at(b, token, h);
      if (t.dtype == Dtype::fp32) {
        float value;
        std::memcpy(&value, at, sizeof value);
        value += 4.0f;
        std::memcpy(at, &value, sizeof value);
      } else {
        std::uint16_t bits;
        std::memcpy(&bits, at, sizeof bits);
        bits = t.dtype == Dtype::bf16 ? float_to_bf16(bf16_to_float(bits) + 4.0f)
                                      : float_to_fp16(fp16_to_float(bits) + 4.0f);
        std::memcpy(at, &bits, sizeof bits);
      }
    }
  }
}

// Computes on the CPU, spoils the first token of the last rank in one result, and verifies on both.
Both verify_both(const AttentionProblem& problem, const std::string& layout, int world_size, VerifyMode mode,
                 std::int64_t padding, bool backward = true, Result spoiled = Result::none) {
  Both both;
  const Plan plan = make_plan(problem, Topology::single_node(world_size), {layout, "ring", backward});
  run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
    Tensors t(plan, world.rank(), 1, padding);
    if (spoiled == Result::value && world.rank() == world_size - 1) {
      for (std::int64_t c = 0; c < static_cast<std::int64_t>(size_of(problem.dtype)); ++c)
        t.v.view().at(0, 0, 0)[c] = std::byte{0xff};
    }
    const AttentionTensors on_host = t.views();
    Attention attention(world, plan);
    const DeviceMemory workspace({}, attention.workspace_bytes(), "a test");
    attention.bind(on_host, {workspace.data(), workspace.size()});
    attention.forward();
    if (backward) attention.backward();

    OwnedTensor* const results[] = {nullptr, &t.out, &t.lse, &t.dq, &t.dk, &t.dv};
    if (spoiled != Result::none && spoiled != Result::value && world.rank() == world_size - 1) {
      spoil(results[static_cast<int>(spoiled)]->view(), 0);
    }
    const AttentionTensors on_device = t.on(kDevice);
    const Verification host = verify(world, plan, on_host, backward, mode, 5);
    const Verification device = verify(world, plan, on_device, backward, mode, 5, kDevice);
    if (world.rank() == 0) both = {host, device};
  });
  return both;
}

void require_alike(const Both& both) {
  const Verification &host = both.host, &device = both.device;
  // Both are errors of the same results against float64, which differ by the rounding of float64 only.
  const auto near = [](double a, double b) { return std::abs(a - b) <= 1e-7 * std::abs(a) + 1e-12; };
  REQUIRE(device.mode == host.mode);
  REQUIRE(device.rows == host.rows);
  REQUIRE(device.wrong == host.wrong);
  REQUIRE(near(host.out_rel_l2, device.out_rel_l2));
  REQUIRE(near(host.lse_max_abs, device.lse_max_abs));
  REQUIRE(near(host.dq_rel_l2, device.dq_rel_l2));
  REQUIRE(near(host.dk_rel_l2, device.dk_rel_l2));
  REQUIRE(near(host.dv_rel_l2, device.dv_rel_l2));
  REQUIRE(device.keys == host.keys);
  REQUIRE(device.nonfinite == host.nonfinite);
  REQUIRE(device.exceeded() == host.exceeded());
  for (const auto& [name, error] : kAggregateErrors) {
    INFO(name);
    REQUIRE(near(host.*error, device.*error));
    REQUIRE(near(host.limits.*error, device.limits.*error));
  }
}

AttentionProblem two_sequences(const std::string& mask, Dtype dtype, std::int64_t seq_len, int head_dim) {
  AttentionProblem problem = problem_of(mask, seq_len, {6, 2, head_dim}, dtype);
  problem.batch = 2;
  return problem;
}

}  // namespace

TEST_CASE("a device verifies as the host does, for every mask and layout") {
  const std::vector<std::string> masks = {"full",
                                          "causal",
                                          "causal+window:19+sinks:3",
                                          "window:11,7",
                                          "causal+prefix:31",
                                          "causal+window:20+sinks:2+prefix:9+documents:41,0,70,37",
                                          "documents:1,100,47"};
  for (const std::string& mask : masks) {
    for (const char* layout : {"contiguous", "zigzag", "striped:4", "striped"}) {
      for (const int world_size : {1, 3}) {
        INFO(mask << " " << layout << " P=" << world_size);
        const Both both =
            verify_both(two_sequences(mask, Dtype::fp32, 148, 24), layout, world_size, VerifyMode::full, 0);
        REQUIRE(both.device.wrong == 0);
        require_alike(both);
      }
    }
  }
}

TEST_CASE("a device verifies samples, dtypes, strides and widths") {
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (const int head_dim : {1, 40, 64, 128, 200, 256}) {
      for (const std::int64_t padding : {0, 3}) {
        INFO(to_string(dtype) << " d" << head_dim << " padding " << padding);
        const Both both = verify_both(two_sequences("causal+window:700+sinks:5", dtype, 1500, head_dim), "zigzag", 2,
                                      VerifyMode::sample, padding);
        REQUIRE(both.device.wrong == 0);
        require_alike(both);
      }
    }
  }
}

TEST_CASE("a device verifies without backward, and ranks without tokens") {
  require_alike(verify_both(two_sequences("causal", Dtype::bf16, 300, 64), "zigzag", 2, VerifyMode::sample, 0, false));
  require_alike(verify_both(two_sequences("causal", Dtype::fp32, 3, 16), "contiguous", 5, VerifyMode::full, 0));
  require_alike(verify_both(two_sequences("full", Dtype::fp32, 0, 16), "contiguous", 2, VerifyMode::full, 0));
}

TEST_CASE("a device sets the same rows apart as the host, where a NaN of the inputs reaches them") {
  const Both both = verify_both(two_sequences("causal+documents:40,56", Dtype::bf16, 96, 32), "contiguous", 3,
                                VerifyMode::full, 0, true, Result::value);
  REQUIRE(both.device.nonfinite == 3 * 32 + 56);  // the queries of three heads behind position 64; the keys they see
  REQUIRE(both.device.right());
  require_alike(both);
}

TEST_CASE("a planted error is found on a device, in every result") {
  const std::pair<Result, std::string> results[] = {
      {Result::out, "out"}, {Result::lse, "lse"}, {Result::dq, "dq"}, {Result::dk, "dk"}, {Result::dv, "dv"}};
  for (const auto& [result, name] : results) {
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16}) {
      for (const VerifyMode mode : {VerifyMode::full, VerifyMode::sample}) {
        INFO(name << " " << to_string(dtype) << " " << to_string(mode));
        const AttentionProblem problem = two_sequences("causal+window:30", dtype, 96, 32);
        const Both both = verify_both(problem, "contiguous", 3, mode, 0, true, result);
        REQUIRE(both.device.wrong > 0);
        REQUIRE(both.device.wrong == both.host.wrong);
        // A sample takes lse and delta from the run, so that a wrong out or lse shows in dk and dv as well.
        if (mode == VerifyMode::full) {
          REQUIRE(both.device.wrong == problem.batch * (name == "dk" || name == "dv" ? 2 : 6));
          REQUIRE(both.device.worst.substr(0, 4 + name.size()) == name + " at ");
          REQUIRE(both.device.worst.substr(0, both.device.worst.find(':')) ==
                  both.host.worst.substr(0, both.host.worst.find(':')));
        }
      }
    }
  }
}
