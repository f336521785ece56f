// The small kernels of CUDA devices against their definitions in float64, with rows that 16-byte accesses suit and rows
// that they do not.
#include <algorithm>
#include <cmath>

#include "gpu/kernel/device_tensor.hpp"
#include "kernels/rowwise.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

namespace cuda = kernels::cuda;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr Dtype kDtypes[] = {Dtype::fp32, Dtype::bf16, Dtype::fp16};
// Rows that lie together, rows that nothing aligns, and rows that begin at 16 bytes.
constexpr std::int64_t kPaddings[] = {0, 3, kAlignedPadding};

struct OwnedState {
  Tensor accumulator, row_max, row_sum;
  OwnedState(std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t padding = 3)
      : accumulator(Dtype::fp32, batch, tokens, heads, width, padding),
        row_max(Dtype::fp32, batch, tokens, heads, 1, padding),
        row_sum(Dtype::fp32, batch, tokens, heads, 1, padding) {}

  // Maxima from -9 to 9; every fifth row has seen nothing.
  OwnedState& fill(std::uint32_t seed) {
    accumulator.fill_normal(seed);
    std::mt19937 generator(seed);
    const TensorView& rows = row_max.view();
    for (std::int64_t b = 0; b < rows.batch; ++b) {
      for (std::int64_t t = 0; t < rows.tokens; ++t) {
        for (std::int64_t h = 0; h < rows.heads; ++h) {
          const bool empty = generator() % 5 == 0;
          row_max.set(b, t, h, 0, empty ? kMinusInfinity : static_cast<float>(generator() % 19) - 9.0f);
          row_sum.set(b, t, h, 0, empty ? 0.0f : 0.5f + static_cast<float>(generator() % 1000) * 0.01f);
          for (std::int64_t c = 0; empty && c < accumulator.view().width; ++c) accumulator.set(b, t, h, c, 0.0f);
        }
      }
    }
    return *this;
  }
  bool padding_intact() const {
    return accumulator.padding_intact() && row_max.padding_intact() && row_sum.padding_intact();
  }
};

class DeviceState {
 public:
  explicit DeviceState(const OwnedState& host)
      : accumulator_(host.accumulator), row_max_(host.row_max), row_sum_(host.row_sum) {}
  operator cuda::State() const { return {accumulator_, row_max_, row_sum_}; }
  void fetch_into(OwnedState& host) const {
    accumulator_.fetch_into(host.accumulator);
    row_max_.fetch_into(host.row_max);
    row_sum_.fetch_into(host.row_sum);
  }

 private:
  DeviceTensor accumulator_, row_max_, row_sum_;
};

// value(b, t, h, c) for every element of a tensor, in order.
template <typename Value>
std::vector<double> values_of(const TensorView& shape, const Value& value) {
  std::vector<double> values;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t t = 0; t < shape.tokens; ++t) {
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        for (std::int64_t c = 0; c < shape.width; ++c) values.push_back(value(b, t, h, c));
      }
    }
  }
  return values;
}

TEST_CASE("clear zeroes rows of any dtype and nothing else") {
  for (Dtype dtype : kDtypes) {
    for (std::int64_t padding : kPaddings) {
      for (std::int64_t width : {1, 13, 64}) {
        Tensor tensor(dtype, 2, 133, 3, width, padding);
        const DeviceTensor device(tensor);
        cuda::clear(device, nullptr);
        device.fetch_into(tensor);
        CHECK(compare(tensor, std::vector<double>(static_cast<std::size_t>(tensor.view().elements()))).max_abs == 0.0);
        CHECK(tensor.padding_intact());
      }
    }
  }
}

TEST_CASE("a tensor of more than 2^31 elements is cleared to its last row") {
  constexpr std::int64_t kWidth = 1023, kStride = 1025, kTokens = (std::int64_t{1} << 31) / kWidth + 5;
  const DeviceMemory memory(kDevice, static_cast<std::size_t>(kTokens * kStride * 2), "a test");
  std::vector<std::byte> rows(3 * kStride * 2);
  poison(rows);
  const TensorView all = {memory.data(), Dtype::bf16, 1, kTokens, 1, kWidth, 0, kStride, 0};
  copy_bytes(all.at(0, kTokens - 3, 0), rows.data(), rows.size());
  cuda::clear(all, nullptr);
  copy_bytes(rows.data(), all.at(0, kTokens - 3, 0), rows.size());
  for (int row = 0; row < 3; ++row) {
    const std::span<const std::byte> bytes(rows.data() + row * kStride * 2, kStride * 2);
    CHECK(std::all_of(bytes.begin(), bytes.begin() + kWidth * 2, [](std::byte b) { return b == std::byte{0}; }));
    CHECK(still_poisoned(bytes.subspan(kWidth * 2)));
  }
}

TEST_CASE("clear_state empties a state, and clear_scan makes the identity") {
  for (std::int64_t padding : kPaddings) {
    OwnedState state(2, 70, 3, 40, padding);
    const DeviceState device(state);
    cuda::clear_state(device, nullptr);
    device.fetch_into(state);
    CHECK(compare(state.accumulator, std::vector<double>(2 * 70 * 3 * 40)).max_abs == 0.0);
    CHECK(compare(state.row_max, std::vector<double>(2 * 70 * 3, kMinusInfinity)).max_abs == 0.0);
    CHECK(compare(state.row_sum, std::vector<double>(2 * 70 * 3)).max_abs == 0.0);
    CHECK(state.padding_intact());

    Tensor matrix(Dtype::fp32, 2, 3, 2, 24, padding), decay(Dtype::fp32, 2, 3, 2, 12, padding);
    const DeviceTensor device_matrix(matrix), device_decay(decay);
    cuda::clear_scan({device_matrix, device_decay}, nullptr);
    device_matrix.fetch_into(matrix);
    device_decay.fetch_into(decay);
    CHECK(compare(matrix, std::vector<double>(2 * 3 * 2 * 24)).max_abs == 0.0);
    CHECK(compare(decay, std::vector<double>(2 * 3 * 2 * 12, 1.0)).max_abs == 0.0);
    CHECK((matrix.padding_intact() && decay.padding_intact()));
  }
}

TEST_CASE("merge of two states has the larger maximum and both sums") {
  for (std::int64_t padding : kPaddings) {
    for (std::int64_t width : {1, 21, 64, 128, 256}) {
      CAPTURE(padding, width);
      OwnedState into(2, 77, 3, width, padding), from(2, 77, 3, width, padding);
      into.fill(1), from.fill(2);
      const auto maximum = [&](auto b, auto t, auto h) {
        return std::max(into.row_max.get(b, t, h, 0), from.row_max.get(b, t, h, 0));
      };
      const auto sum_of = [&](const OwnedState& state, const Tensor& of, auto b, auto t, auto h, auto c) {
        if (state.row_sum.get(b, t, h, 0) == 0) return 0.0;
        return of.get(b, t, h, c) * std::exp2(state.row_max.get(b, t, h, 0) - maximum(b, t, h));
      };
      const auto maxima = values_of(into.row_max, [&](auto b, auto t, auto h, auto) { return maximum(b, t, h); });
      const auto sums = values_of(into.row_sum, [&](auto b, auto t, auto h, auto c) {
        return sum_of(into, into.row_sum, b, t, h, c) + sum_of(from, from.row_sum, b, t, h, c);
      });
      const auto accumulators = values_of(into.accumulator, [&](auto b, auto t, auto h, auto c) {
        return sum_of(into, into.accumulator, b, t, h, c) + sum_of(from, from.accumulator, b, t, h, c);
      });
      const DeviceState device(into), device_from(from);
      cuda::merge(device, device_from, nullptr);
      device.fetch_into(into);
      CHECK(compare(into.row_max, maxima).max_abs == 0.0);
      CHECK(compare(into.row_sum, sums).rel_l2 <= 1e-7);
      CHECK(compare(into.accumulator, accumulators).rel_l2 <= 1e-7);
      CHECK(into.padding_intact());
    }
  }
}

TEST_CASE("merge with an empty state changes no bit, and maxima may be far apart") {
  OwnedState filled(1, 3, 2, 20), empty(1, 3, 2, 20), low(1, 3, 2, 20);
  filled.accumulator.fill_normal(5);
  filled.row_max.fill_constant(500.0f);
  filled.row_sum.fill_constant(7.0f);
  low.accumulator.fill_normal(6);
  low.row_max.fill_constant(-500.0f);
  low.row_sum.fill_constant(3.0f);
  const DeviceState device(filled), nothing(empty), far(low);
  cuda::clear_state(nothing, nullptr);
  cuda::merge(device, nothing, nullptr);
  cuda::merge(device, far, nullptr);
  OwnedState found(1, 3, 2, 20);
  device.fetch_into(found);
  CHECK(found.accumulator.memory() == filled.accumulator.memory());
  CHECK(found.row_max.memory() == filled.row_max.memory());
  CHECK(found.row_sum.memory() == filled.row_sum.memory());
  cuda::merge(far, device, nullptr);
  far.fetch_into(found);
  CHECK(found.accumulator.memory() == filled.accumulator.memory());
  cuda::merge(nothing, device, nullptr);
  nothing.fetch_into(found);
  CHECK(found.accumulator.memory() == filled.accumulator.memory());
  CHECK((found.row_max.get(0, 1, 0, 0) == 500.0 && found.row_sum.get(0, 1, 0, 0) == 7.0));
}

TEST_CASE("normalize divides, rounds to the dtype and takes the natural logarithm") {
  for (Dtype dtype : kDtypes) {
    for (std::int64_t padding : kPaddings) {
      for (std::int64_t width : {37, 64, 256}) {
        OwnedState state(2, 77, 3, width, padding);
        state.fill(3);
        Tensor out(dtype, 2, 77, 3, width, padding), expected(dtype, 2, 77, 3, width, padding);
        Tensor lse(Dtype::fp32, 2, 77, 3, 1);
        expected.fill([&](auto b, auto t, auto h, auto c) {
          const auto sum = static_cast<float>(state.row_sum.get(b, t, h, 0));
          return sum == 0 ? 0.0f : static_cast<float>(state.accumulator.get(b, t, h, c)) / sum;
        });
        const auto logarithms = values_of(lse, [&](auto b, auto t, auto h, auto) {
          return (state.row_max.get(b, t, h, 0) + std::log2(state.row_sum.get(b, t, h, 0))) * std::log(2.0);
        });
        const DeviceState device(state);
        const DeviceTensor device_out(out), device_lse(lse);
        cuda::normalize(device, device_out, device_lse, nullptr);
        device_out.fetch_into(out);
        device_lse.fetch_into(lse);
        CHECK(out.memory() == expected.memory());
        CHECK(compare(lse, logarithms).rel_l2 <= 1e-7);
        CHECK(lse.padding_intact());
      }
    }
  }
}

TEST_CASE("delta is the row sum of out times its gradient, the same bits every time") {
  for (Dtype dtype : kDtypes) {
    for (std::int64_t padding : kPaddings) {
      for (std::int64_t width : {1, 7, 40, 64, 100, 128, 256}) {
        Tensor out(dtype, 2, 77, 3, width, padding), grad_out(dtype, 2, 77, 3, width, padding);
        Tensor delta(Dtype::fp32, 2, 77, 3, 1), again(Dtype::fp32, 2, 77, 3, 1);
        out.fill_normal(1);
        grad_out.fill_normal(2);
        const auto expected = values_of(delta, [&](auto b, auto t, auto h, auto) {
          double sum = 0;
          for (std::int64_t c = 0; c < width; ++c) sum += out.get(b, t, h, c) * grad_out.get(b, t, h, c);
          return sum;
        });
        const DeviceTensor device_out(out), device_grad(grad_out), device_delta(delta), device_again(again);
        cuda::delta(device_out, device_grad, device_delta, nullptr);
        cuda::delta(device_out, device_grad, device_again, nullptr);
        device_delta.fetch_into(delta);
        device_again.fetch_into(again);
        CHECK(compare(delta, expected).rel_l2 <= 1e-6);
        CHECK(delta.memory() == again.memory());
        CHECK(delta.padding_intact());
      }
    }
  }
}

TEST_CASE("the pass that finds delta may clear other rows, whatever the strides of either") {
  for (Dtype dtype : kDtypes) {
    for (std::int64_t padding : kPaddings) {
      for (std::int64_t cleared_padding : kPaddings) {
        for (std::int64_t width : {1, 7, 40, 64, 100, 128, 256}) {
          Tensor out(dtype, 2, 77, 3, width, padding), grad_out(dtype, 2, 77, 3, width, padding);
          Tensor alone(Dtype::fp32, 2, 77, 3, 1), delta(Dtype::fp32, 2, 77, 3, 1);
          Tensor cleared(Dtype::fp32, 2, 77, 3, width, cleared_padding);
          out.fill_normal(1);
          grad_out.fill_normal(2);
          cleared.fill_normal(3);
          const DeviceTensor device_out(out), device_grad(grad_out), device_alone(alone), device_delta(delta);
          const DeviceTensor device_cleared(cleared);
          cuda::delta(device_out, device_grad, device_alone, nullptr);
          cuda::delta_and_clear(device_out, device_grad, device_delta, device_cleared, nullptr);
          device_alone.fetch_into(alone);
          device_delta.fetch_into(delta);
          device_cleared.fetch_into(cleared);
          CHECK(delta.memory() == alone.memory());
          CHECK(compare(cleared, values_of(cleared, [](auto...) { return 0.0; })).max_abs == 0.0);
          CHECK(cleared.padding_intact());
        }
      }
    }
  }
}

TEST_CASE("add sums row by row, whatever the strides") {
  for (std::int64_t padding : kPaddings) {
    for (std::int64_t from_padding : kPaddings) {
      for (std::int64_t width : {1, 29, 64}) {
        Tensor into(Dtype::fp32, 2, 77, 3, width, padding), from(Dtype::fp32, 2, 77, 3, width, from_padding);
        into.fill_normal(1);
        from.fill_normal(2);
        const auto expected = values_of(into, [&](auto b, auto t, auto h, auto c) {
          return static_cast<float>(into.get(b, t, h, c) + from.get(b, t, h, c));
        });
        const DeviceTensor device(into), device_from(from);
        cuda::add(device, device_from, nullptr);
        device.fetch_into(into);
        CHECK(compare(into, expected).max_abs == 0.0);
        CHECK(into.padding_intact());
      }
    }
  }
}

TEST_CASE("copy casts between all dtypes exactly as one number at a time") {
  constexpr std::int64_t kPatterns = 1 << 16;
  for (Dtype from_dtype : kDtypes) {
    for (std::int64_t padding : kPaddings) {
      const std::int64_t width = kPatterns + padding;
      Tensor from(from_dtype, 1, 2, 1, width, padding);
      std::mt19937 generator(11);
      for (std::int64_t i = 0; i < width; ++i) {
        // Every 16-bit pattern; for fp32, random patterns and halfway cases of the two narrow formats.
        std::uint32_t bits =
            from_dtype == Dtype::fp32 ? static_cast<std::uint32_t>(generator()) : static_cast<std::uint32_t>(i);
        if (from_dtype == Dtype::fp32 && i % 4 == 1) bits = (bits & 0xffff0000u) | 0x8000u;
        if (from_dtype == Dtype::fp32 && i % 4 == 2) bits = (bits & 0x8fffe000u) + 0x34001000u;
        for (int t = 0; t < 2; ++t) {
          std::memcpy(from.view().at(0, t, 0) + i * static_cast<std::int64_t>(size_of(from_dtype)), &bits,
                      size_of(from_dtype));
        }
      }
      const DeviceTensor device_from(from);
      for (Dtype to_dtype : kDtypes) {
        CAPTURE(to_string(from_dtype), to_string(to_dtype), padding);
        Tensor to(to_dtype, 1, 2, 1, width, padding), expected(to_dtype, 1, 2, 1, width, padding);
        const DeviceTensor device_to(to);
        cuda::copy(device_to, device_from, nullptr);
        device_to.fetch_into(to);
        std::int64_t different = 0;
        for (std::int64_t i = 0; i < 2 * width; ++i) {
          const std::int64_t t = i / width, c = i % width;
          expected.set(0, t, 0, c, static_cast<float>(from.get(0, t, 0, c)));
          const double found = to.get(0, t, 0, c), wanted = expected.get(0, t, 0, c);
          const bool same = found == wanted && std::signbit(found) == std::signbit(wanted);
          different += !same && !(std::isnan(found) && std::isnan(wanted));
        }
        CHECK(different == 0);
        CHECK(to.padding_intact());
      }
    }
  }
}

TEST_CASE("compose scales the earlier matrix by the later decay, and not the other way round") {
  const struct { std::int64_t rows, columns; } shapes[] = {{3, 18}, {16, 16}, {1, 260}, {256, 256}, {5, 1}};
  for (const auto& [rows, columns] : shapes) {
    for (std::int64_t padding : kPaddings) {
      CAPTURE(rows, columns, padding);
      Tensor matrix(Dtype::fp32, 1, 5, 2, rows * columns, padding), decay(Dtype::fp32, 1, 5, 2, rows, padding);
      Tensor earlier_matrix(Dtype::fp32, 1, 5, 2, rows * columns, padding);
      Tensor earlier_decay(Dtype::fp32, 1, 5, 2, rows, padding);
      matrix.fill_normal(1), decay.fill_normal(2), earlier_matrix.fill_normal(3), earlier_decay.fill_normal(4);
      const auto expected_decay = values_of(
          decay, [&](auto b, auto t, auto h, auto r) { return decay.get(b, t, h, r) * earlier_decay.get(b, t, h, r); });
      const std::int64_t row_width = columns;
      const auto expected_matrix = values_of(matrix, [&](auto b, auto t, auto h, auto c) {
        return matrix.get(b, t, h, c) + decay.get(b, t, h, c / row_width) * earlier_matrix.get(b, t, h, c);
      });
      const DeviceTensor device_matrix(matrix), device_decay(decay), device_earlier(earlier_matrix),
          device_earlier_decay(earlier_decay);
      cuda::compose({device_matrix, device_decay}, {device_earlier, device_earlier_decay}, nullptr);
      device_matrix.fetch_into(matrix);
      device_decay.fetch_into(decay);
      CHECK(compare(matrix, expected_matrix).rel_l2 <= 1e-6);
      CHECK(compare(decay, expected_decay).rel_l2 <= 1e-6);
      CHECK((matrix.padding_intact() && decay.padding_intact()));
    }
  }
}

TEST_CASE("tensors without rows are left alone") {
  const Tensor nothing(Dtype::fp32, 1, 0, 2, 8), single(Dtype::fp32, 1, 0, 2, 1);
  const DeviceTensor device(nothing), rows(single);
  const cuda::State state = {device, rows, rows};
  CHECK_NOTHROW(cuda::clear(device, nullptr));
  CHECK_NOTHROW(cuda::clear_state(state, nullptr));
  CHECK_NOTHROW(cuda::merge(state, state, nullptr));
  CHECK_NOTHROW(cuda::normalize(state, device, rows, nullptr));
  CHECK_NOTHROW(cuda::delta(device, device, rows, nullptr));
  CHECK_NOTHROW(cuda::delta_and_clear(device, device, rows, device, nullptr));
  CHECK_NOTHROW(cuda::add(device, device, nullptr));
  CHECK_NOTHROW(cuda::copy(device, device, nullptr));
  CHECK_NOTHROW(synchronize(kDevice));
}

}  // namespace
}  // namespace orrery::test
