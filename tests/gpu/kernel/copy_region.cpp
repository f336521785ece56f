// Regions of all shapes and alignments, copied on the device and byte by byte on the host.
#include "kernels/cuda/copy_region.hpp"
#include "gpu/kernel/device_tensor.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

using kernels::cuda::copy_region;

// Runs in a buffer: where they begin, and their shape.
struct Layout {
  std::int64_t begin;
  std::array<std::int64_t, 3> counts, strides;
  std::int64_t run_bytes;

  Region in(std::byte* buffer) const { return {buffer + begin, counts, strides, run_bytes}; }
  // The offset of every byte, in order.
  std::vector<std::int64_t> offsets() const {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < counts[0]; ++i) {
      for (std::int64_t j = 0; j < counts[1]; ++j) {
        for (std::int64_t k = 0; k < counts[2]; ++k) {
          for (std::int64_t b = 0; b < run_bytes; ++b) {
            all.push_back(begin + i * strides[0] + j * strides[1] + k * strides[2] + b);
          }
        }
      }
    }
    return all;
  }
};

void check_copy(const Layout& into, const Layout& from) {
  CAPTURE(into.begin, into.counts[0], into.counts[1], into.counts[2], into.run_bytes);
  CAPTURE(from.begin, from.counts[0], from.counts[1], from.counts[2], from.run_bytes);
  const auto to = into.offsets(), of = from.offsets();
  REQUIRE(to.size() == of.size());
  constexpr std::size_t kPast = 64;  // bytes behind the last
  std::vector<std::byte> source(of.empty() ? kPast : static_cast<std::size_t>(of.back()) + kPast);
  std::vector<std::byte> expected(to.empty() ? kPast : static_cast<std::size_t>(to.back()) + kPast);
  std::mt19937 generator(5);
  for (std::byte& b : source) b = static_cast<std::byte>(generator());
  for (std::byte& b : expected) b = static_cast<std::byte>(generator());
  const DeviceArray<std::byte> device_source{source}, device{expected};
  for (std::size_t i = 0; i < to.size(); ++i) {
    expected[static_cast<std::size_t>(to[i])] = source[static_cast<std::size_t>(of[i])];
  }
  copy_region(into.in(device.data()), from.in(device_source.data()), nullptr);
  CHECK(device.fetch() == expected);
}

TEST_CASE("rows are packed and unpacked at every alignment") {
  for (std::int64_t unit : {1, 2, 4, 8, 16}) {
    // [batch 2, heads 3, tokens 50] runs of 24 units, with one unit between runs and `unit` bytes in front.
    const std::int64_t run = 24 * unit, stride = 25 * unit;
    const Layout rows = {unit, {2, 3, 50}, {151 * stride, 50 * stride, stride}, run};
    const Layout packed = {3 * unit, {1, 1, 1}, {0, 0, 0}, 300 * run};
    check_copy(packed, rows);
    check_copy(rows, packed);
  }
}

TEST_CASE("both sides may be of different shapes") {
  const Layout tokens_first = {0, {1, 60, 4}, {0, 4 * 144, 144}, 128};
  const Layout heads_first = {16, {4, 10, 6}, {70 * 256, 6 * 256, 256}, 128};
  const Layout long_runs = {32, {1, 1, 15}, {0, 0, 4096}, 2048};
  for (const Layout* into : {&tokens_first, &heads_first, &long_runs}) {
    for (const Layout* from : {&tokens_first, &heads_first, &long_runs}) check_copy(*into, *from);
  }
}

TEST_CASE("runs that touch are joined, and what is contiguous in the end is one copy") {
  const Layout whole = {0, {1, 1, 1}, {0, 0, 0}, 4 * 6 * 8 * 20};
  const Layout touching = {3, {4, 6, 8}, {6 * 8 * 20, 8 * 20, 20}, 20};
  const Layout inner_apart = {1, {4, 6, 8}, {6 * 8 * 21, 8 * 21, 21}, 20};      // the two outer levels join
  const Layout outer_apart = {5, {4, 6, 8}, {6 * 8 * 20 + 7, 8 * 20, 20}, 20};  // the two inner levels join
  const Layout swapped = {0, {6, 4, 8}, {8 * 20, 6 * 8 * 20, 20}, 20};
  for (const Layout* layout : {&touching, &inner_apart, &outer_apart, &swapped}) {
    check_copy(whole, *layout);
    check_copy(*layout, whole);
    check_copy(*layout, inner_apart);
  }
}

TEST_CASE("a large region and an empty one") {
  const Layout large = {0, {3, 1000, 8}, {9000 * 272, 9 * 272, 272}, 256};
  check_copy({0, {1, 1, 1}, {0, 0, 0}, 3 * 1000 * 8 * 256}, large);
  check_copy({0, {2, 0, 3}, {64, 64, 64}, 16}, {0, {1, 1, 1}, {0, 0, 0}, 0});
}

TEST_CASE("regions of different sizes are a fault of ours") {
  const DeviceArray<std::byte> bytes{std::vector<std::byte>(64)};
  CHECK_THROWS_AS(
      copy_region({bytes.data(), {1, 1, 1}, {0, 0, 0}, 16}, {bytes.data(), {1, 1, 1}, {0, 0, 0}, 17}, nullptr), Error);
}

}  // namespace
}  // namespace orrery::test
