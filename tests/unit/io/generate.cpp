// Generated inputs: known answers of the generator, the same value however an element is reached, and the statistics
// that make them fit to be attention inputs.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/float_formats.hpp"
#include "io/philox.hpp"
#include "orrery/error.hpp"
#include "orrery/generate.hpp"
#include "support/catch.hpp"
#include "unit/io/files.hpp"

using namespace orrery;
using orrery::io::philox;

namespace {

std::vector<float> generate_fp32(Generated tensor, std::uint64_t seed, std::int64_t batch, std::int64_t heads,
                                 std::int64_t width, std::vector<Span> positions) {
  const std::int64_t tokens = token_count(positions);
  std::vector<float> values(static_cast<std::size_t>(batch * tokens * heads * width));
  generate(TensorView::dense(values.data(), Dtype::fp32, batch, tokens, heads, width), tensor, seed, positions);
  return values;
}

double correlation(const std::vector<float>& values, std::size_t lag) {
  double sum = 0;
  for (std::size_t i = 0; i + lag < values.size(); ++i) sum += double{values[i]} * values[i + lag];
  return sum / static_cast<double>(values.size() - lag);
}

}  // namespace

TEST_CASE("philox gives the published answers") {
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == io::PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) ==
        io::PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        io::PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a value follows from the counter words as generate.cpp documents them") {
  const std::uint64_t seed = 0x123456789abcdef0;
  const std::int64_t batch = 3, position = (std::int64_t{5} << 32) + 7, head = 11, column = 27;
  const auto words = philox({7, 5, 3, (11u << 16) + 13u}, {0x9abcdef0, 0x12345678u ^ (3u * 0x9e3779b9u)});
  const std::int64_t sum = (words[2] & 0xffff) + (words[2] >> 16) + (words[3] & 0xffff) + (words[3] >> 16) - 131070LL;
  const float scale = static_cast<float>(std::sqrt(3.0 / 4294967295.0));
  CHECK(generated_value(Generated::value, seed, batch, position, head, column) == static_cast<float>(sum) * scale);
}

TEST_CASE("the first values never change") {
  // A change here breaks every result that was recorded with a seed.
  const auto values = generate_fp32(Generated::query, 0, 1, 1, 4, {{0, 1, 1}});
  CHECK(values == std::vector<float>{-0x1.1c5aa2p-2f, 0x1.5ed93ap-3f, -0x1.112d48p-1f, 0x1.ad587ap-1f});
}

TEST_CASE("an element is the same however the positions are cut, and equals generated_value") {
  const std::uint64_t seed = 42;
  const std::int64_t batch = 2, heads = 3, width = 70;  // not a multiple of what is made at a time
  const auto whole = generate_fp32(Generated::key, seed, batch, heads, width, {{0, 24, 1}});
  const std::vector<std::vector<Span>> cuts = {
      {{0, 7, 1}, {7, 0, 1}, {7, 17, 1}}, {{0, 8, 3}, {1, 8, 3}, {2, 8, 3}}, {{20, 4, 1}, {0, 20, 1}}, {{5, 1, 9}}};
  for (const auto& positions : cuts) {
    const std::int64_t tokens = token_count(positions);
    const auto part = generate_fp32(Generated::key, seed, batch, heads, width, positions);
    std::int64_t wrong = 0;
    for (std::int64_t b = 0; b < batch; ++b) {
      std::int64_t token = 0;
      for (const Span& span : positions) {
        for (std::int64_t i = 0; i < span.count; ++i, ++token) {
          for (std::int64_t e = 0; e < heads * width; ++e) {
            const float value = part[(b * tokens + token) * heads * width + e];
            wrong += value != whole[(b * 24 + span.at(i)) * heads * width + e];
            wrong += value != generated_value(Generated::key, seed, b, span.at(i), e / width, e % width);
          }
        }
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("strides are honoured and nothing between the rows is touched") {
  const std::int64_t tokens = 5, heads = 2, width = 3;
  const Span positions{10, tokens, 2};
  std::vector<float> memory(200, -77.f);
  TensorView view{memory.data(), Dtype::fp32, 1, tokens, heads, width, 0, 8, 60};
  generate(view, Generated::query, 1, {&positions, 1});
  std::int64_t written = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t c = 0; c < width; ++c) {
        CHECK(memory[view.offset(0, t, h) + c] == generated_value(Generated::query, 1, 0, positions.at(t), h, c));
        ++written;
      }
    }
  }
  CHECK(std::count(memory.begin(), memory.end(), -77.f) == 200 - written);
}

TEST_CASE("16-bit tensors hold the fp32 values, rounded") {
  const Span positions{0, 64, 1};
  const auto exact = generate_fp32(Generated::value, 9, 1, 1, 64, {positions});
  std::vector<std::uint16_t> bf16(exact.size()), fp16(exact.size());
  generate(TensorView::dense(bf16.data(), Dtype::bf16, 1, 64, 1, 64), Generated::value, 9, {&positions, 1});
  generate(TensorView::dense(fp16.data(), Dtype::fp16, 1, 64, 1, 64), Generated::value, 9, {&positions, 1});
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    wrong += bf16[i] != float_to_bf16(exact[i]);
    wrong += fp16[i] != float_to_fp16(exact[i]);
  }
  CHECK(wrong == 0);
}

TEST_CASE("values have mean 0, variance 1 and no correlation between neighbours") {
  const std::int64_t tokens = 4096, heads = 4, width = 64;  // a million values: a standard error of 0.001
  const auto values = generate_fp32(Generated::query, 2024, 1, heads, width, {{0, tokens, 1}});
  double sum = 0, squares = 0, fourths = 0, largest = 0;
  for (const float v : values) {
    const double square = double{v} * v;
    sum += v;
    squares += square;
    fourths += square * square;
    largest = std::max(largest, std::abs(double{v}));
  }
  const auto count = static_cast<double>(values.size());
  CHECK(std::abs(sum / count) < 0.005);
  CHECK(std::abs(squares / count - 1) < 0.007);
  CHECK(std::abs(fourths / count - 2.7) < 0.05);  // of four uniforms; a normal one has 3
  CHECK(largest < 2 * std::sqrt(3.0) + 1e-6);
  for (const std::int64_t lag : {std::int64_t{1}, std::int64_t{2}, width, heads * width, 2 * heads * width}) {
    CHECK(std::abs(correlation(values, static_cast<std::size_t>(lag))) < 0.005);
  }
}

TEST_CASE("seeds, tensors and batches give unrelated values") {
  const std::vector<Span> positions = {{0, 1024, 1}};
  const auto base = generate_fp32(Generated::query, 1, 2, 1, 64, positions);
  const std::size_t half = base.size() / 2;
  CHECK(std::abs(correlation(base, half)) < 0.02);  // batch 0 against batch 1
  const auto against = [&](const std::vector<float>& other) {
    double product = 0;
    for (std::size_t i = 0; i < base.size(); ++i) product += double{base[i]} * other[i];
    return std::abs(product) / static_cast<double>(base.size());
  };
  CHECK(against(base) == Approx(1).margin(0.02));
  CHECK(against(generate_fp32(Generated::key, 1, 2, 1, 64, positions)) < 0.02);
  CHECK(against(generate_fp32(Generated::query, 2, 2, 1, 64, positions)) < 0.02);
  CHECK(against(generate_fp32(Generated::query, 1 + (std::uint64_t{1} << 32), 2, 1, 64, positions)) < 0.02);
}

TEST_CASE("an empty shard is nothing to do, and misuse is refused") {
  generate(TensorView::dense(nullptr, Dtype::fp32, 1, 0, 4, 8), Generated::query, 1, {});
  std::vector<float> memory(64);
  const auto misuse = [&](std::int64_t tokens, Span span) {
    return test::refusal([&] {
      generate(TensorView::dense(memory.data(), Dtype::fp32, 1, tokens, 1, 1), Generated::query, 1, {&span, 1});
    });
  };
  for (const auto& error : {misuse(3, {0, 4, 1}), misuse(4, {-1, 4, 1}), misuse(4, {0, 4, 0}), misuse(-4, {0, -4, 1}),
                            misuse(4, {std::numeric_limits<std::int64_t>::max() - 2, 4, 1})}) {
    REQUIRE(error);
    CHECK(error->code == ErrorCode::invalid);
  }
}
