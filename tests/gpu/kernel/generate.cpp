// Inputs that a device makes are the host's, bit for bit, and nothing between the rows is touched.
#include <limits>
#include <vector>

#include "gpu/kernel/device_tensor.hpp"
#include "orrery/generate.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

// Both make a tensor of these positions; every byte is compared, the poison between the rows too.
void require_same_bits(Dtype dtype, std::int64_t heads, std::int64_t width, std::int64_t padding,
                       const std::vector<Span>& positions, Generated which, std::uint64_t seed,
                       Recipe recipe = Recipe::normal) {
  Tensor host(dtype, 2, token_count(positions), heads, width, padding);
  const DeviceTensor device(host);
  generate(device, which, seed, positions, kDevice, recipe);
  generate(host, which, seed, positions, {}, recipe);
  Tensor fetched(dtype, 2, token_count(positions), heads, width, padding);
  device.fetch_into(fetched);
  INFO(to_string(dtype) << " " << heads << " heads of " << width << ", padding " << padding << ", seed " << seed);
  REQUIRE(fetched.padding_intact());
  REQUIRE(fetched.memory() == host.memory());
}

}  // namespace

TEST_CASE("a device generates the host's bits for every dtype, width and alignment") {
  const std::vector<Span> positions = {{5, 37, 1}};
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (const std::int64_t padding : {std::int64_t{0}, std::int64_t{3}, kAlignedPadding}) {
      for (const std::int64_t width : {1, 7, 8, 64, 70, 256}) {
        require_same_bits(dtype, 3, width, padding, positions, Generated::query, 1);
      }
    }
  }
}

TEST_CASE("a device generates the host's bits wherever the positions lie") {
  const std::int64_t far = std::numeric_limits<std::int64_t>::max() / 2;
  std::vector<Span> many;
  for (std::int64_t i = 0; i < 1000; ++i) many.push_back({11 * i, i % 4, 1 + i % 3});  // some empty
  const std::vector<std::vector<Span>> lists = {{{0, 1, 1}},         {{0, 7, 1}, {7, 0, 1}, {7, 17, 1}},
                                                {{1, 50, 16}},       {{20, 4, 1}, {0, 20, 1}},
                                                {{far, 9, 1 << 20}}, many};
  for (const auto& positions : lists) {
    require_same_bits(Dtype::bf16, 2, 72, 0, positions, Generated::key, 42);
  }
}

TEST_CASE("a device tells seeds and tensors apart as the host does") {
  const std::vector<Span> positions = {{0, 64, 1}};
  for (const auto which : {Generated::query, Generated::key, Generated::value, Generated::grad_out}) {
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{7}, std::uint64_t{0xfedcba9876543210}}) {
      require_same_bits(Dtype::fp32, 2, 16, 0, positions, which, seed);
    }
  }
}

TEST_CASE("a device makes the host's counting inputs, for every tensor, dtype and width") {
  const std::vector<Span> positions = {{5, 37, 1}, {100000, 20, 3}};
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16, Dtype::fp16}) {
    for (const auto which : {Generated::query, Generated::key, Generated::value, Generated::grad_out}) {
      for (const std::int64_t width : {1, 7, 64, 70}) {
        require_same_bits(dtype, 3, width, width == 64 ? 0 : 3, positions, which, 0, Recipe::counting);
      }
    }
  }
}

TEST_CASE("many more heads than columns, and no tokens at all") {
  require_same_bits(Dtype::fp16, 4099, 2, 0, {{3, 5, 2}}, Generated::value, 3);
  generate(TensorView::dense(nullptr, Dtype::bf16, 1, 0, 4, 8), Generated::query, 1, {}, kDevice);
}

}  // namespace orrery::test
