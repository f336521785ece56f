// The forward kernels of bf16 and fp16, those for any device and, on a device that has them, Hopper's, against float64,
// over every kind of mask, size and head_dim, at once and in blocks.
#include <cmath>

#include "gpu/kernel/on_device.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

using kernels::reference::Forward;

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Every test runs once with each.
OnDevice::Forward either() {
  const auto kernels = GENERATE(cuda::Kernels::portable, cuda::Kernels::best);
  return [kernels](cuda::AttendForward call) {
    call.kernels = kernels;
    cuda::attend_forward(call, nullptr);
  };
}

// P is rounded before its product with V, and out at the end; all else is fp32. Each rounding errs by at most u
// relative, and by 0.4 u over many numbers, so that out errs by 0.6 u. A row of one key errs by the same in every
// column of P V, and a few rows do not average that out. lse comes from the unrounded P.
void check_forward(const Problem& p, const Forward& expected, double lse_tolerance = 1e-5) {
  const TensorView& rows = p.out.view();
  const double u = rounding_of(rows.dtype);
  const double tolerance = rows.batch * rows.tokens * rows.heads < 64 ? 2 * u : 0.8 * u;
  const Difference out = compare(p.out, expected.out), lse = compare(p.lse, expected.lse, Order::heads_tokens);
  INFO("out " << out << "\nlse " << lse);
  CHECK(out.rel_l2 <= tolerance);
  CHECK(lse.max_abs <= lse_tolerance);
  CHECK((p.out.padding_intact() && p.lse.padding_intact()));
}

void check_at_once(Problem& p, double lse_tolerance = 1e-5) {
  const OnDevice device(p);
  device.fold(0, p.key.view().tokens, true, true, either());
  device.fetch_out_into(p);
  check_forward(p, forward_of(p), lse_tolerance);
}

void check_shape(const Shape& shape, Mask mask) {
  INFO(describe(shape, mask));
  Problem p = make_problem(shape, mask);
  check_at_once(p);
}

TEST_CASE("16-bit forward agrees with float64 under every mask at ragged sizes") {
  for_each_short_problem(check_shape);
}

TEST_CASE("16-bit forward agrees with float64 over several tiles of queries and keys") {
  for (Mask mask : {Mask::causal, Mask::window, Mask::window_sinks, Mask::documents, Mask::random}) {
    check_shape({Dtype::bf16, 1, 700, 1100, 2, 1, 64}, mask);
    check_shape({Dtype::fp16, 1, 700, 1100, 1, 1, 128}, mask);
  }
  check_shape({Dtype::bf16, 1, 1100, 700, 1, 1, 128}, Mask::causal);  // the first rows see nothing
}

// Sections of ForwardOrder: the L2 cache holds the keys and values of two of the three heads.
TEST_CASE("16-bit forward takes the heads of a long problem in sections") {
  check_shape({Dtype::bf16, 1, 130, 16000, 3, 3, 256}, Mask::window);
  check_shape({Dtype::fp16, 1, 150, 16000, 6, 3, 256}, Mask::window_sinks);
}

TEST_CASE("without key ranges every query sees every key in 16-bit forward") {
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {24, 64, 128, 192}) {
      Problem p = make_problem({dtype, 2, 70, 150, 4, 2, head_dim}, Mask::full);
      const OnDevice device(p);
      const DeviceArray<std::byte> scratch(std::vector<std::byte>(cuda::kForwardScratchBytes));
      either()({device.query,
                device.key,
                device.value,
                {},
                {},
                {},
                {},
                device.scale,
                true,
                true,
                device.out,
                device.lse,
                0,
                scratch.data()});
      device.fetch_out_into(p);
      check_forward(p, forward_of(p));
    }
  }
}

TEST_CASE("a 16-bit state carried over blocks of keys is that of all of them") {
  unsigned turn = 0;
  for (Mask mask : kMasks) {
    for (std::int64_t head_dim : {24, 64, 128, 256}) {
      const Shape shape = {kShortDtypes[turn++ % 2], 1, 150, 333, 4, 2, head_dim};
      INFO(describe(shape, mask));
      Problem p = make_problem(shape, mask);
      const Forward expected = forward_of(p);
      const OnDevice device(p);
      const std::int64_t ends[] = {1, 130, 130, 201, 333};
      for (std::int64_t begin = 0; std::int64_t end : ends) {
        device.fold(begin, end, begin == 0, false, either());
        begin = end;
      }
      device.fetch_out_into(p);
      CHECK((still_poisoned(p.out.memory()) && still_poisoned(p.lse.memory())));
      device.fold(333, 333, false, true, either());
      device.fetch_out_into(p);
      check_forward(p, expected);

      // The same by normalising the state that stays.
      device.fold(0, 333, true, false, either());
      cuda::normalize(device.state(), device.out, device.lse, nullptr);
      device.fetch_out_into(p);
      check_forward(p, expected);
      device.fetch_state_into(p);
      CHECK((p.accumulator.padding_intact() && p.row_max.padding_intact() && p.row_sum.padding_intact()));
      for (int i = 0; i < 150; ++i) {  // the largest term is 1
        CHECK((p.row_max.get(0, i, 3, 0) == kMinusInfinity || p.row_sum.get(0, i, 3, 0) > 0.99999));
      }
    }
  }
}

TEST_CASE("a row that sees one key returns its value, bit for bit") {
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {64, 128}) {
      Problem p = make_problem({dtype, 1, 65, 65, 4, 2, head_dim}, Mask::causal);
      const OnDevice device(p);
      device.fold(0, 65, true, true);
      device.fetch_out_into(p);
      for (int h = 0; h < 4; ++h) {
        for (int c = 0; c < head_dim; ++c) CHECK(p.out.get(0, 0, h, c) == p.value.get(0, 0, h / 2, c));
      }
    }
  }
}

TEST_CASE("the last block alone finishes a 16-bit state") {
  for (Dtype dtype : kShortDtypes) {
    Problem p = make_problem({dtype, 2, 130, 200, 3, 1, 72}, Mask::random);
    const OnDevice device(p);
    device.fold(140, 200, true, false, either());
    device.fetch_state_into(p);
    const auto accumulator = p.accumulator.memory(), row_max = p.row_max.memory(), row_sum = p.row_sum.memory();
    device.fold(0, 140, false, true, either());
    device.fetch_out_into(p);
    check_forward(p, forward_of(p));
    device.fetch_state_into(p);  // it is not written
    CHECK((p.accumulator.memory() == accumulator && p.row_max.memory() == row_max && p.row_sum.memory() == row_sum));
  }
}

TEST_CASE("16-bit rows that see nothing are empty, and a state that sees nothing more keeps its bits") {
  for (std::int64_t head_dim : {24, 128, 256}) {
    Problem p = make_problem({Dtype::fp16, 1, 100, 80, 2, 1, head_dim}, Mask::empty_rows);
    OnDevice device(p);
    device.fold(0, 80, true, false, either());
    device.fetch_state_into(p);
    for (int i = 1; i < 100; i += 3) {
      CHECK((p.row_max.get(0, i, 0, 0) == kMinusInfinity && p.row_sum.get(0, i, 0, 0) == 0.0));
      for (std::int64_t c = 0; c < head_dim; ++c) CHECK(p.accumulator.get(0, i, 1, c) == 0.0);
    }
    const auto accumulator = p.accumulator.memory(), row_max = p.row_max.memory(), row_sum = p.row_sum.memory();
    const auto keeps_its_bits = [&] {
      device.fold(0, 80, false, false, either());
      device.fetch_state_into(p);
      return p.accumulator.memory() == accumulator && p.row_max.memory() == row_max && p.row_sum.memory() == row_sum;
    };
    const kernels::KeyRange first_row = device.ranges[0];
    device.ranges.assign(100, kernels::KeyRange{});
    CHECK(keeps_its_bits());

    // Nor does it matter that another row of the tile sees something: here one that saw nothing before.
    CHECK(first_row.begin == first_row.end);
    device.ranges[0] = {3, 70, 0, 0};
    device.fold(0, 80, false, false, either());
    Problem after = make_problem({Dtype::fp16, 1, 100, 80, 2, 1, head_dim}, Mask::empty_rows);
    device.fetch_state_into(after);
    CHECK(after.row_sum.get(0, 0, 0, 0) > 0.0);
    for (int i = 1; i < 100; ++i) {
      CHECK((after.row_max.get(0, i, 1, 0) == p.row_max.get(0, i, 1, 0) &&
             after.row_sum.get(0, i, 1, 0) == p.row_sum.get(0, i, 1, 0)));
      for (std::int64_t c = 0; c < head_dim; ++c) {
        CHECK(after.accumulator.get(0, i, 1, c) == p.accumulator.get(0, i, 1, c));
      }
    }

    device.ranges.assign(100, kernels::KeyRange{});
    device.fold(0, 80, true, true, either());
    device.fetch_out_into(p);
    CHECK(compare(p.out, std::vector<double>(static_cast<std::size_t>(100 * 2 * head_dim))).max_abs == 0.0);
    CHECK(compare(p.lse, std::vector<double>(200, kMinusInfinity)).max_abs == 0.0);
  }
}

TEST_CASE("peaked 16-bit softmax keeps its precision") {
  for (Dtype dtype : kShortDtypes) {
    Problem p = make_problem({dtype, 1, 100, 700, 2, 2, 128}, Mask::causal);
    p.scale *= 8.0f;  // scores of some 30
    check_at_once(p, 5e-5);
  }
}

TEST_CASE("16-bit forward takes a scale of any sign, and none") {
  for (std::int64_t head_dim : {64, 128, 192}) {
    for (float factor : {-1.0f, -4.0f, 0.0f}) {
      Problem p = make_problem({Dtype::bf16, 1, 130, 150, 2, 1, head_dim}, Mask::causal);
      p.scale *= factor;
      check_at_once(p, 2e-5);
    }
  }
}

TEST_CASE("products past the range of fp16 stay finite") {
  Problem p = make_problem({Dtype::fp16, 1, 130, 200, 2, 1, 64}, Mask::random);
  p.query.fill([&](auto b, auto t, auto h, auto c) { return 128.0 * p.query.get(b, t, h, c); });
  p.key.fill([&](auto b, auto t, auto h, auto c) { return 128.0 * p.key.get(b, t, h, c); });
  p.value.fill([&](auto b, auto t, auto h, auto c) { return 8192.0 * p.value.get(b, t, h, c); });
  p.scale /= 128.0f * 128.0f;
  check_at_once(p);
}

// The largest score first, and after it many of which each is below the last bit of a 16-bit sum, but not of an fp32
// one. All of P is a power of two, so that nothing else is rounded.
TEST_CASE("small 16-bit terms after large ones are not lost") {
  constexpr int kDim = 8, kKeys = 8192;
  for (Dtype dtype : kShortDtypes) {
    Problem p = make_problem({dtype, 1, 1, kKeys + 1, 1, 1, kDim}, Mask::full);
    p.query.fill([](auto, auto, auto, auto c) { return c == 0 ? 1.0 : 0.0; });
    p.key.fill([&](auto, auto t, auto, auto c) { return c == 0 && t == 0 ? 14.0 : 0.0; });
    p.value.fill([](auto, auto t, auto, auto c) { return t == 0 ? 1.0 : 1.0 + 0.125 * static_cast<double>(c); });
    p.scale = std::log(2.0f);
    const Forward expected = forward_of(p);
    const OnDevice device(p);
    device.fold(0, 1, true, false, either());
    device.fold(1, kKeys + 1, false, false, either());
    device.fetch_state_into(p);
    for (int c = 0; c < kDim; ++c) {
      const double found = p.accumulator.get(0, 0, 0, c) / p.row_sum.get(0, 0, 0, 0);
      CHECK(std::abs(found - expected.out[static_cast<std::size_t>(c)]) < 1e-5);
    }
  }
}

// Where one score outweighs the rest, its power is to be 1: any other is rounded, and the sum is not. A maximum that
// lagged behind it by 5.28, in units of log 2, would show as 3e-3 in bf16.
TEST_CASE("a 16-bit maximum does not lag behind a score that outweighs all before it") {
  constexpr int kKeys = 512;
  const auto score = [](std::int64_t key) { return key == 300 ? 5.28125 : key == 3 ? 0.0 : -40.0; };
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {64, 96, 128, 192, 256}) {
      Problem p = make_problem({dtype, 1, 200, kKeys, 2, 1, head_dim}, Mask::full);
      p.query.fill([](auto, auto, auto, auto c) { return c == 0 ? 1.0 : 0.0; });
      p.key.fill([&](auto, auto t, auto, auto c) { return c == 0 ? score(t) : 0.0; });
      p.value.fill([](auto, auto t, auto, auto) { return t == 300 ? 1.0 : 0.0; });
      p.scale = std::log(2.0f);
      const Forward expected = forward_of(p);
      const OnDevice device(p);
      for (int middle : {kKeys, 256}) {
        device.fold(0, middle, true, false, either());
        if (middle < kKeys) device.fold(middle, kKeys, false, false, either());
        device.fetch_state_into(p);
        for (int row : {0, 77, 199}) {
          const double found = p.accumulator.get(0, row, 1, 0) / p.row_sum.get(0, row, 1, 0);
          CHECK(std::abs(found - expected.out[0]) < 1e-5);
        }
      }
    }
  }
}

TEST_CASE("16-bit outputs and states have the same bits every time") {
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {64, 128, 256}) {
      const Shape shape = {dtype, 2, 500, 700, 8, 2, head_dim};
      Problem p = make_problem(shape, Mask::window_sinks), again = make_problem(shape, Mask::window_sinks);
      for (Problem* run : {&p, &again}) {
        const OnDevice device(*run);
        device.fold(0, 301, true, false, either());
        device.fetch_state_into(*run);
        device.fold(301, 700, false, true, either());
        device.fetch_out_into(*run);
      }
      CHECK((p.accumulator.memory() == again.accumulator.memory() && p.row_max.memory() == again.row_max.memory() &&
             p.row_sum.memory() == again.row_sum.memory()));
      CHECK((p.out.memory() == again.out.memory() && p.lse.memory() == again.lse.memory()));
    }
  }
}

TEST_CASE("forward refuses 16-bit tensors that its kernels cannot take") {
  const Problem p = make_problem({Dtype::bf16, 1, 8, 8, 2, 1, 16}, Mask::full);
  const OnDevice device(p);
  const auto refuses = [&](const auto& spoil) {
    device.fold(0, 8, true, true, [&](cuda::AttendForward call) {
      spoil(call);
      CHECK_THROWS_AS(cuda::attend_forward(call, nullptr), Error);
    });
  };
  const auto past = [](const TensorView& tensor, int bytes) { return tensor.at(0, 0, 0) + bytes; };
  refuses([&](auto& call) { call.query.data = past(call.query, 2); });
  refuses([&](auto& call) { call.key.data = past(call.key, 8); });
  refuses([&](auto& call) { call.value.data = past(call.value, 2); });
  refuses([&](auto& call) { call.out.data = past(call.out, 4); });
  refuses([](auto& call) { call.key.token_stride -= 4; });
  refuses([](auto& call) { call.out.head_stride -= 1; });
  refuses([](auto& call) { call.query.width = call.key.width = call.value.width = call.out.width = 12; });
  refuses([](auto& call) { call.value.dtype = Dtype::fp16; });
  refuses([](auto& call) { call.out.dtype = Dtype::fp32; });
  refuses([](auto& call) { call.value.tokens = 7; });
  refuses([](auto& call) { call.key_ranges.tiles = nullptr; });
  refuses([](auto& call) { call.first = false, call.accumulator.width = 8; });
}

}  // namespace
}  // namespace orrery::test
