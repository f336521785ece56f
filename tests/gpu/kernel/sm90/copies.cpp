// What copies leave in shared and global memory, to the byte, and tensors as the copy unit sees them.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "device/check.hpp"
#include "gpu/kernel/sm90/image.hpp"
#include "gpu/kernel/sm90/probes.hpp"
#include "kernels/cuda/sm90/tensor_map.hpp"
#include "support/catch.hpp"

namespace orrery::test::sm90 {
namespace {

using kernels::cuda::sm90::float_map;
using kernels::cuda::sm90::tensor_map;

// A tensor on the device. No element is 0, no two that are near each other are the same, and neither is what lies
// between and around the rows.
class Numbered {
 public:
  Numbered(TensorView view, std::size_t elements) : view_(view), host_(elements) {
    for (std::size_t i = 0; i < elements; ++i) host_[i] = static_cast<std::uint16_t>(1 + i % 65521);
    const std::size_t bytes = elements * sizeof(std::uint16_t);
    ORRERY_CUDA_CHECK(cudaMalloc(&view_.data, bytes));
    ORRERY_CUDA_CHECK(cudaMemcpy(view_.data, host_.data(), bytes, cudaMemcpyHostToDevice));
  }
  ~Numbered() { cudaFree(view_.data); }
  Numbered(const Numbered&) = delete;
  Numbered& operator=(const Numbered&) = delete;

  const TensorView& view() const { return view_; }
  // 0 outside of the tensor.
  std::uint16_t at(int batch, int token, int head, int column) const {
    const bool inside = batch >= 0 && batch < view_.batch && token >= 0 && token < view_.tokens && head >= 0 &&
                        head < view_.heads && column >= 0 && column < view_.width;
    return inside ? host_[static_cast<std::size_t>(view_.offset(batch, token, head) + column)] : std::uint16_t{0};
  }
  // The box, between its guards.
  std::vector<std::byte> box_at(int rows, const BoxPlace& place) const {
    const std::vector<std::uint16_t> image = image_of(rows, 64, 0, [&](int row, int column) {
      return at(place.batch, place.row + row, place.head, place.column + column);
    });
    const std::span<const std::byte> bytes = std::as_bytes(std::span(image));
    std::vector<std::byte> all(bytes.size() + 2 * kGuardBytes, kUntouched);
    std::copy(bytes.begin(), bytes.end(), all.begin() + static_cast<std::ptrdiff_t>(kGuardBytes));
    return all;
  }

 private:
  TensorView view_;
  std::vector<std::uint16_t> host_;
};

// The orders in which a caller may have the elements, rows dense or with others between them.
enum class Order { tokens_of_heads, heads_of_tokens, padded, part_of_wider };

TensorView ordered(Order order, Dtype dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                   std::int64_t width) {
  TensorView view = TensorView::dense(nullptr, dtype, batch, tokens, heads, width);
  if (order == Order::heads_of_tokens) view.head_stride = tokens * width, view.token_stride = width;
  if (order == Order::padded) view.head_stride = width + 8, view.token_stride = heads * (width + 8) + 16;
  if (order == Order::part_of_wider) view.token_stride = 3 * heads * width;
  view.batch_stride = std::max(view.token_stride * tokens, view.head_stride * heads) + 24;
  return view;
}
std::size_t elements_of(const TensorView& view) {
  return static_cast<std::size_t>(view.batch * view.batch_stride + 256);
}

Numbered numbered(Order order, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width) {
  const TensorView view = ordered(order, Dtype::bf16, batch, tokens, heads, width);
  return Numbered(view, elements_of(view));
}

TEST_CASE("a box of a tensor arrives with its chunks exchanged, and zeros from outside") {
  constexpr Order kOrders[] = {Order::tokens_of_heads, Order::heads_of_tokens, Order::padded, Order::part_of_wider};
  constexpr std::int64_t kShapes[][2] = {{1, 1}, {2, 3}, {1, 4}, {3, 1}};  // batch, heads
  constexpr std::int64_t kTokens[] = {1, 7, 100, 256, 300};
  constexpr int kRows[] = {8, 64, 80, 112, 128, 192, 256};
  unsigned turn = 0;
  for (const std::int64_t width : {8, 40, 64, 72, 128, 192, 200, 256}) {
    for (const std::int64_t tokens : kTokens) {
      const auto& [batch, heads] = kShapes[turn % 4];
      const int rows = kRows[turn % 7];
      const Numbered tensor = numbered(kOrders[turn / 4 % 4], batch, tokens, heads, width);
      const CUtensorMap map = tensor_map(tensor.view(), rows);
      for (const auto& [column, row] : {std::pair{0, 0}, {64, 3}, {0, -5}, {-8, 1}, {128, 60}, {192, 100}}) {
        const BoxPlace place{column, row, static_cast<int>(turn % heads), static_cast<int>(turn / 2 % batch)};
        INFO(width << " wide, " << tokens << " tokens, " << heads << " heads, " << batch << " batches, " << rows
                   << " rows from column " << column << ", row " << row << ", head " << place.head << ", batch "
                   << place.batch);
        const bool same = box(map, rows, place, static_cast<KeepLines>(turn % 3)) == tensor.box_at(rows, place);
        CHECK(same);
        ++turn;
      }
    }
  }
}

TEST_CASE("a box outside of the heads and batches is zeros") {
  const Numbered tensor = numbered(Order::padded, 2, 20, 3, 64);
  const CUtensorMap map = tensor_map(tensor.view(), 16);
  for (const BoxPlace& place : {BoxPlace{0, 0, 3, 0}, BoxPlace{0, 0, 0, 2}, BoxPlace{0, 20, 0, 0}}) {
    const bool same = box(map, 16, place, KeepLines::normal) == tensor.box_at(16, place);
    CHECK(same);
  }
}

TEST_CASE("nobody follows a stride of a dimension of one") {
  const Numbered dense = numbered(Order::tokens_of_heads, 1, 1, 1, 64);
  TensorView view = dense.view();
  view.batch_stride = 3, view.head_stride = 0, view.token_stride = 5;
  const bool same = box(tensor_map(view, 8), 8, {0, 0, 0, 0}, KeepLines::normal) == dense.box_at(8, {0, 0, 0, 0});
  CHECK(same);
}

TEST_CASE("a tensor that the copy unit cannot see has no map") {
  const Numbered tensor = numbered(Order::tokens_of_heads, 2, 4, 3, 64);
  CHECK_NOTHROW(tensor_map(tensor.view(), 256));
  CHECK_THROWS_WITH(tensor_map(tensor.view(), 257), ContainsSubstring("boxes of 257 rows"));
  TensorView odd = tensor.view();
  odd.token_stride += 4;
  CHECK_THROWS_WITH(tensor_map(odd, 64), ContainsSubstring("no tensor map"));
  odd = tensor.view();
  odd.data = static_cast<std::byte*>(odd.data) + 2;
  CHECK_THROWS_WITH(tensor_map(odd, 64), ContainsSubstring("no tensor map"));
  odd = tensor.view();
  odd.dtype = Dtype::fp32;
  CHECK_THROWS_WITH(tensor_map(odd, 64), ContainsSubstring("a map of 16-bit panels for fp32"));
  CHECK_THROWS_WITH(float_map(tensor.view(), 64), ContainsSubstring("a map of fp32 panels for bf16"));
  TensorView none = tensor.view();
  none.tokens = none.batch = 0;
  CHECK_NOTHROW(tensor_map(none, 64));
}

TEST_CASE("a box of floats is added to a tensor as often as was asked, and to nothing outside of it") {
  constexpr Order kOrders[] = {Order::tokens_of_heads, Order::heads_of_tokens, Order::padded, Order::part_of_wider};
  constexpr int kColumns = 32;
  int turn = 0;
  for (const int width : {8, 32, 40, 128}) {
    for (const auto& [column, row] : {std::pair{0, 0}, {32, 3}, {0, 60}, {96, 90}, {0, 100}}) {
      const TensorView view = ordered(kOrders[turn % 4], Dtype::fp32, 2, 100, 3, width);
      const BoxPlace at{column, row, turn % 3, turn % 2};
      const int rows = turn % 2 == 0 ? 64 : 16, times = 1 + turn % 3 * 2;
      std::vector<float> before(elements_of(view));
      for (std::size_t i = 0; i < before.size(); ++i) before[i] = static_cast<float>(i % 8191) - 4000.0f;
      std::vector<float> expected = before, box(static_cast<std::size_t>(rows * kColumns));
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < kColumns; ++c) {
          const float addend = static_cast<float>(r * kColumns + c) - 700.5f;
          box[place_in_float_image(r, c)] = addend;
          if (row + r >= view.tokens || column + c >= view.width) continue;
          expected[static_cast<std::size_t>(view.offset(at.batch, row + r, at.head) + column + c)] +=
              static_cast<float>(times) * addend;
        }
      }
      INFO(width << " wide, " << rows << " rows from column " << column << ", row " << row << ", head " << at.head
                 << ", batch " << at.batch << ", " << times << " times");
      const bool same = reduce(view, before, rows, at, box, times) == expected;
      CHECK(same);
      ++turn;
    }
  }
}

TEST_CASE("a warp stores four matrices of 8 by 8 to the rows that its lanes name") {
  std::vector<int> at(32);
  for (int lane = 0; lane < 32; ++lane) at[static_cast<std::size_t>(lane)] = (lane * 5 + 3) % 32;
  std::vector<std::uint32_t> expected(128);
  for (int matrix = 0; matrix < 4; ++matrix) {
    for (int row = 0; row < 8; ++row) {
      for (int pair = 0; pair < 4; ++pair) {
        const int place = at[static_cast<std::size_t>(matrix * 8 + row)];
        expected[static_cast<std::size_t>(place * 4 + pair)] =
            static_cast<std::uint32_t>(100 * (row * 4 + pair) + matrix);
      }
    }
  }
  CHECK(store_matrices(at) == expected);
}

}  // namespace
}  // namespace orrery::test::sm90
