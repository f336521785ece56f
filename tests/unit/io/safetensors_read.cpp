// Reading rows: any spans into any strides give what the definition gives, element by element.
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/io.hpp"
#include "support/catch.hpp"
#include "unit/io/files.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

constexpr std::int64_t kBatch = 2, kTokens = 40, kHeads = 3, kWidth = 5;

// A file of one 16-bit tensor "q" whose elements count up from 0 in the order of the file.
void write_counting(const std::string& path, std::int64_t tokens = kTokens, std::int64_t width = kWidth) {
  const std::int64_t elements = kBatch * tokens * kHeads * width;
  std::string data(static_cast<std::size_t>(2 * elements), '\0');
  for (std::int64_t i = 0; i < elements; ++i) {
    const auto value = static_cast<std::uint16_t>(i);
    std::memcpy(data.data() + 2 * i, &value, 2);
  }
  write_text(path, safetensors(concat(R"({"q":{"dtype":"BF16","shape":[)", kBatch, ",", tokens, ",", kHeads, ",", width,
                                      R"(],"data_offsets":[0,)", 2 * elements, "]}}"),
                               data));
}

struct Strides {
  std::int64_t batch, token, head;
};

// The elements of `into` that are wrong, and those outside its rows that were touched.
std::int64_t wrong_elements(const SafetensorsFile& file, std::int64_t file_tokens, std::int64_t width,
                            const std::vector<Span>& positions, const Strides& strides) {
  constexpr std::uint16_t kUntouched = 0xfffe;
  const std::int64_t tokens = token_count(positions);
  const std::int64_t size = kBatch * strides.batch + tokens * strides.token + kHeads * strides.head + width;
  std::vector<std::uint16_t> memory(static_cast<std::size_t>(size), kUntouched), expected = memory;
  const TensorView view{memory.data(), Dtype::bf16,   kBatch,        tokens,      kHeads,
                        width,         strides.batch, strides.token, strides.head};
  for (std::int64_t b = 0; b < kBatch; ++b) {
    std::int64_t token = 0;
    for (const Span& span : positions) {
      for (std::int64_t i = 0; i < span.count; ++i, ++token) {
        for (std::int64_t h = 0; h < kHeads; ++h) {
          for (std::int64_t w = 0; w < width; ++w) {
            const std::int64_t in_file = ((b * file_tokens + span.at(i)) * kHeads + h) * width + w;
            expected[view.offset(b, token, h) + w] = static_cast<std::uint16_t>(in_file);
          }
        }
      }
    }
  }
  file.read(file.info("q"), positions, view);
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < memory.size(); ++i) wrong += memory[i] != expected[i];
  return wrong;
}

}  // namespace

TEST_CASE("rows at any spans arrive in any strided destination") {
  const TemporaryFolder folder;
  write_counting(folder / "q");
  const SafetensorsFile file(folder / "q");
  const std::vector<std::vector<Span>> position_lists = {
      {{0, kTokens, 1}},                     // everything
      {},                                    // an empty shard
      {{7, 0, 1}, {39, 1, 1}, {0, 0, 5}},    // one row, between empty spans
      {{0, 5, 1}, {5, 5, 1}, {30, 10, 1}},   // spans that continue one another
      {{1, 13, 3}},                          // stripes
      {{0, 4, 4}, {1, 1, 9}, {2, 3, 1}},     // stripes, then runs of stride 1
      {{30, 10, 1}, {0, 10, 1}, {0, 2, 1}},  // out of order, and twice
  };
  const std::int64_t row = kHeads * kWidth;
  const std::vector<Strides> layouts = {
      {kTokens * row, row, kWidth},                           // dense [batch, tokens, heads, width]
      {kTokens * (row + 2), row + 2, kWidth},                 // a gap after each token
      {kTokens * 32, 32, 7},                                  // and after each head
      {kHeads * kTokens * kWidth, kWidth, kTokens * kWidth},  // heads outside tokens
  };
  for (const auto& positions : position_lists) {
    for (const Strides& strides : layouts) CHECK(wrong_elements(file, kTokens, kWidth, positions, strides) == 0);
  }
}

TEST_CASE("rows larger than the buffer, and stripes too far apart to read the gaps, arrive too") {
  const TemporaryFolder folder;
  const std::int64_t tokens = 700, width = 513;  // 3 KB a row, 2 MB a batch item
  write_counting(folder / "q", tokens, width);
  const SafetensorsFile file(folder / "q");
  const std::int64_t row = kHeads * width;
  for (const Strides& strides : {Strides{tokens * row, row, width}, Strides{tokens * row * 2, 2 * row, 2 * width}}) {
    CHECK(wrong_elements(file, tokens, width, {{0, tokens, 1}}, strides) == 0);
    CHECK(wrong_elements(file, tokens, width, {{3, 99, 7}, {1, 349, 2}}, strides) == 0);
  }
}

TEST_CASE("a tensor without a batch dimension is a batch of one") {
  const TemporaryFolder folder;
  write_text(folder / "q", safetensors(R"({"q":{"dtype":"F32","shape":[2,1,1],"data_offsets":[0,8]}})",
                                       std::string_view("\0\0\x80\x3f\0\0\0\x40", 8)));
  const SafetensorsFile file(folder / "q");
  std::vector<float> values(2);
  const Span backwards[] = {{1, 1, 1}, {0, 1, 1}};
  file.read(file.info("q"), backwards, TensorView::dense(values.data(), Dtype::fp32, 1, 2, 1, 1));
  CHECK(values == std::vector<float>{2.f, 1.f});
}

TEST_CASE("a tensor with its heads before its tokens is read head by head") {
  const TemporaryFolder folder;
  write_counting(folder / "q");
  const SafetensorsFile file(folder / "q");
  // The same bytes as kTokens heads of kHeads tokens.
  const std::int64_t heads = kTokens, tokens = kHeads;
  for (const std::vector<Span>& positions : {std::vector<Span>{{0, tokens, 1}}, {{2, 1, 1}, {0, 2, 1}}, {{0, 2, 2}}}) {
    const std::int64_t count = token_count(positions);
    std::vector<std::uint16_t> memory(static_cast<std::size_t>(kBatch * count * heads * kWidth));
    const TensorView view = TensorView::dense(memory.data(), Dtype::bf16, kBatch, count, heads, kWidth);
    file.read(file.info("q"), positions, view, AxisOrder::heads_tokens);
    std::int64_t wrong = 0, token = 0;
    for (const Span& span : positions) {
      for (std::int64_t i = 0; i < span.count; ++i, ++token) {
        for (std::int64_t b = 0; b < kBatch; ++b) {
          for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t w = 0; w < kWidth; ++w) {
              const std::int64_t in_file = ((b * heads + h) * tokens + span.at(i)) * kWidth + w;
              wrong += memory[view.offset(b, token, h) + w] != static_cast<std::uint16_t>(in_file);
            }
          }
        }
      }
    }
    CHECK(wrong == 0);
    CHECK(refusal([&] { file.read(file.info("q"), positions, view); }));
  }
}

TEST_CASE("a destination that does not fit the tensor is refused") {
  const TemporaryFolder folder;
  write_counting(folder / "q");
  const SafetensorsFile file(folder / "q");
  std::vector<float> memory(10'000);
  const auto reading = [&](const std::vector<Span>& positions, Dtype dtype, std::int64_t batch, std::int64_t tokens,
                           std::int64_t heads, std::int64_t width) {
    const auto view = TensorView::dense(memory.data(), dtype, batch, tokens, heads, width);
    const auto error = refusal([&] { file.read(file.info("q"), positions, view); });
    REQUIRE(error);
    CHECK(error->code == ErrorCode::invalid);
    return error->message;
  };
  const auto sound = Dtype::bf16;
  CHECK_THAT(reading({{0, 4, 1}}, Dtype::fp16, 2, 4, 3, 5),
             ContainsSubstring("is bf16") && ContainsSubstring("as fp16"));
  CHECK_THAT(reading({{0, 4, 1}}, sound, 1, 4, 3, 5), ContainsSubstring("batch 2"));
  CHECK_THAT(reading({{0, 4, 1}}, sound, 2, 4, 4, 5), ContainsSubstring("heads 3"));
  CHECK_THAT(reading({{0, 4, 1}}, sound, 2, 4, 3, 4), ContainsSubstring("width 5"));
  CHECK_THAT(reading({{0, 4, 1}}, sound, 2, 5, 3, 5), ContainsSubstring("4 positions were to be read into 5 tokens"));
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  for (const Span& span : {Span{-1, 4, 1}, Span{37, 4, 1}, Span{0, 4, 14}, Span{0, 4, 0}, Span{0, 4, huge},
                           Span{huge, 4, 1}, Span{0, huge, huge}, Span{0, -4, 1}}) {
    CHECK_THAT(reading({span}, sound, 2, 4, 3, 5), ContainsSubstring("leave the 40 tokens"));
  }
}

TEST_CASE("a tensor of another number of dimensions is refused") {
  const TemporaryFolder folder;
  write_text(folder / "q", safetensors(R"({"q":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}})", "1234"));
  const SafetensorsFile file(folder / "q");
  float value = 0;
  const Span one{0, 1, 1};
  CHECK_THROWS_WITH(file.read(file.info("q"), {&one, 1}, TensorView::dense(&value, Dtype::fp32, 1, 1, 1, 1)),
                    ContainsSubstring("has 2 dimensions"));
}

TEST_CASE("a file that shrank after it was opened is a clean error") {
  const TemporaryFolder folder;
  write_counting(folder / "q");
  const SafetensorsFile file(folder / "q");
  std::filesystem::resize_file(folder / "q", 500);
  std::vector<std::uint16_t> memory(kBatch * kTokens * kHeads * kWidth);
  const Span all{0, kTokens, 1};
  const auto error = refusal([&] {
    file.read(file.info("q"), {&all, 1},
              TensorView::dense(memory.data(), Dtype::bf16, kBatch, kTokens, kHeads, kWidth));
  });
  REQUIRE(error);
  CHECK(error->code == ErrorCode::invalid);
  CHECK_THAT(error->message, ContainsSubstring("ends at byte 500; it shrank"));
}
