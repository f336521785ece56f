// The backward kernels of bf16 and fp16 against float64, those for any device in every tiling and, on a device that has
// them, Hopper's, in either order of adding, over every kind of mask, size and head_dim, at once and in blocks.
#include <algorithm>
#include <cmath>
#include <optional>

#include "gpu/kernel/on_device.hpp"
#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

using cuda::BackwardTiles;
using Gradients = kernels::reference::Backward;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// How to run the kernel. `fitting` is `wide` wherever that runs; without tiles, the device's best kernel.
struct Way {
  std::optional<BackwardTiles> tiles;
  bool deterministic;

  OnDevice::Backward attend() const {
    return [way = *this](cuda::AttendBackward call) {
      call.deterministic = way.deterministic;
      if (way.tiles) {
        cuda::attend_backward_16bit(call, nullptr, *way.tiles);
      } else {
        cuda::attend_backward(call, nullptr);
      }
    };
  }
};
constexpr Way kWays[] = {{BackwardTiles::fitting, true}, {BackwardTiles::fitting, false},
                         {BackwardTiles::narrow, true},  {BackwardTiles::narrow, false},
                         {std::nullopt, true},           {std::nullopt, false}};

std::ostream& operator<<(std::ostream& out, const Way& way) {
  const char* tiles = way.tiles == BackwardTiles::narrow ? "narrow tiles" : "fitting tiles";
  return out << (way.tiles ? tiles : "best kernel") << ", " << (way.deterministic ? "in order" : "in any order");
}

// P and dS are rounded before their products; all else is fp32, lse and delta included. A rounding errs by at most u
// relative, and by 0.4 u over many numbers.
void check_gradient(const char* which, const Tensor& actual, const std::vector<double>& expected, double u) {
  const Difference difference = compare(actual, expected);
  INFO(which << ": " << difference);
  const TensorView& rows = actual.view();
  if (std::all_of(expected.begin(), expected.end(), [](double x) { return std::abs(x) < 1e-9; })) {
    CHECK(difference.max_abs <= 5e-5);  // zero but for rounding, as of the scores of a single key
  } else {
    CHECK(difference.rel_l2 <= (rows.batch * rows.tokens * rows.heads < 64 ? 2 * u : 0.7 * u));
  }
  CHECK(actual.padding_intact());
}

// constant: what the gradients were before.
void check_gradients(Problem& p, const Gradients& expected, double constant) {
  const double u = rounding_of(p.query.view().dtype);
  for (Tensor* gradient : {&p.grad_query, &p.grad_key, &p.grad_value}) {
    gradient->fill([&](auto... at) { return gradient->get(at...) - constant; });
  }
  check_gradient("dq", p.grad_query, expected.grad_query, u);
  check_gradient("dk", p.grad_key, expected.grad_key, u);
  check_gradient("dv", p.grad_value, expected.grad_value, u);
}

// Runs every way on a problem that is ready.
void check_every_way(Problem& p, const Gradients& expected) {
  for (const Way& way : kWays) {
    INFO(way);
    fill_gradients(p, 0.0f);
    const OnDevice device(p);
    device.add_gradients(0, p.key.view().tokens, way.attend());
    device.fetch_gradients_into(p);
    check_gradients(p, expected, 0.0);
  }
}

void check_at_once(const Shape& shape, Mask mask) {
  INFO(describe(shape, mask));
  Problem p = make_problem(shape, mask);
  prepare_backward(p, 0.0f);
  check_every_way(p, backward_of(p));
}

TEST_CASE("16-bit backward agrees with float64 under every mask at ragged sizes") {
  for_each_short_problem(check_at_once);
}

TEST_CASE("16-bit backward agrees with float64 over several tiles of queries and keys") {
  for (Mask mask : {Mask::causal, Mask::window, Mask::window_sinks, Mask::documents, Mask::random}) {
    check_at_once({Dtype::bf16, 1, 700, 1100, 2, 1, 64}, mask);
    check_at_once({Dtype::fp16, 1, 700, 1100, 1, 1, 128}, mask);
    check_at_once({Dtype::bf16, 1, 700, 1100, 2, 1, 192}, mask);
    check_at_once({Dtype::fp16, 1, 700, 1100, 2, 1, 256}, mask);
  }
  check_at_once({Dtype::bf16, 1, 1100, 700, 1, 1, 128}, Mask::causal);  // the first rows see nothing
}

// A block lists the visits among 32 or 128 query tiles at a time. Where there are more it first finds the outer ones.
TEST_CASE("16-bit backward agrees with float64 over very many tiles of queries") {
  for (Mask mask : {Mask::causal, Mask::documents, Mask::one_key, Mask::random}) {
    check_at_once({Dtype::bf16, 1, 4500, 300, 1, 1, 8}, mask);
    check_at_once({Dtype::bf16, 1, 8500, 300, 1, 1, 72}, mask);
    check_at_once({Dtype::bf16, 1, 4500, 300, 1, 1, 136}, mask);
  }
  for (Mask mask : {Mask::window, Mask::window_sinks, Mask::documents}) {
    check_at_once({Dtype::fp16, 1, 4500, 4400, 1, 1, 40}, mask);
  }
}

TEST_CASE("without key ranges every query sees every key in 16-bit backward") {
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {24, 64, 128, 192, 200}) {
      Problem p = make_problem({dtype, 2, 70, 150, 4, 2, head_dim}, Mask::full);
      prepare_backward(p, 0.0f);
      const Gradients expected = backward_of(p);
      for (const Way& way : kWays) {
        INFO(way);
        fill_gradients(p, 0.0f);
        const OnDevice device(p);
        device.add_gradients(0, 150, [&](cuda::AttendBackward call) {
          call.key_ranges = {};
          way.attend()(call);
        });
        device.fetch_gradients_into(p);
        check_gradients(p, expected, 0.0);
      }
    }
  }
}

TEST_CASE("16-bit gradients are added to what is there, whether the keys come at once or in blocks") {
  for (Mask mask : kMasks) {
    for (const Way& way : kWays) {
      Problem p = make_problem({Dtype::fp16, 1, 150, 333, 4, 2, 72}, mask);
      INFO(way << ' ' << name(mask));
      prepare_backward(p, 2.0f);
      const OnDevice device(p);
      device.add_gradients(201, 333, way.attend());
      device.add_gradients(0, 1, way.attend());
      device.add_gradients(1, 1, way.attend());
      device.add_gradients(1, 201, way.attend());
      device.fetch_gradients_into(p);
      check_gradients(p, backward_of(p), 2.0);
    }
  }
}

// A call that is the first on the gradients of its keys, the last, or both: what is there must be added to, or may be
// anything. Keys come in two blocks, each with a call of its own.
struct Ends {
  bool first, last;
};

void check_ends(const Shape& shape, Mask mask, const Ends& ends) {
  const double u = rounding_of(shape.dtype);
  const std::int64_t middle = shape.key_len / 3;
  Problem p = make_problem(shape, mask);
  prepare_backward(p, 0.0f);
  Gradients expected = backward_of(p);
  if (!ends.first) {
    for (auto* gradient : {&expected.grad_key, &expected.grad_value}) {
      for (double& x : *gradient) x += 2.0;
    }
  }
  const auto results = [&] {
    Tensor tensor(shape.dtype, shape.batch, shape.key_len, shape.kv_heads, shape.head_dim, kAlignedPadding);
    tensor.fill_constant(kNan);
    return tensor;
  };
  for (const Way& way : kWays) {
    // The front alone knows what to do without queries, and with a last call that is not the first.
    if (way.tiles && (shape.query_len == 0 || !ends.first)) continue;
    INFO(way << (ends.first ? ", first" : "") << (ends.last ? ", last" : "") << ' ' << describe(shape, mask));
    p.grad_query.fill_constant(0.0f);
    for (Tensor* gradient : {&p.grad_key, &p.grad_value}) gradient->fill_constant(ends.first ? kNan : 2.0f);
    Tensor key_out = results(), value_out = results();
    const OnDevice device(p);
    const DeviceTensor device_key_out(key_out), device_value_out(value_out);
    for (const auto& [begin, end] : {std::pair{std::int64_t{0}, middle}, std::pair{middle, shape.key_len}}) {
      device.add_gradients(begin, end, [&, begin = begin, end = end](cuda::AttendBackward call) {
        call.first = ends.first;
        call.last = ends.last;
        if (ends.last) {
          call.key_out = device_key_out.tokens(begin, end);
          call.value_out = device_value_out.tokens(begin, end);
        }
        way.attend()(call);
      });
    }
    device.fetch_gradients_into(p);
    device_key_out.fetch_into(key_out);
    device_value_out.fetch_into(value_out);
    check_gradient("dq", p.grad_query, expected.grad_query, u);
    check_gradient("dk", ends.last ? key_out : p.grad_key, expected.grad_key, ends.last ? 2 * u : u);
    check_gradient("dv", ends.last ? value_out : p.grad_value, expected.grad_value, ends.last ? 2 * u : u);
    CHECK((p.grad_key.padding_intact() && p.grad_value.padding_intact()));
  }
}

TEST_CASE("16-bit gradients of keys are stored over whatever is there by a first call, and rounded by a last") {
  unsigned turn = 0;
  for_each_short_problem([&](const Shape& shape, Mask mask) {
    const Ends ends[] = {{true, true}, {true, false}, {false, true}};
    check_ends(shape, mask, ends[turn++ % 3]);
  });
  for (std::int64_t head_dim : {24, 64, 96, 128, 192, 256}) {
    for (const Ends& ends : {Ends{true, true}, Ends{true, false}, Ends{false, true}}) {
      check_ends({Dtype::bf16, 1, 90, 400, 2, 1, head_dim}, Mask::window, ends);  // most keys are seen by nobody
    }
  }
}

// lse says that some rows have seen nothing, whatever their ranges say; the others are as if these were not there.
void check_unseeing_rows(float query, float grad_out) {
  for (std::int64_t head_dim : {24, 64, 128, 192, 256}) {
    Problem p = make_problem({Dtype::bf16, 1, 150, 170, 2, 1, head_dim}, Mask::full);
    prepare_backward(p, 0.0f);
    std::vector<int> unseeing;
    for (int i = 3; i < 150; i += 7) unseeing.push_back(i);
    for (int i : unseeing) {
      p.ranges[static_cast<std::size_t>(i)] = {};
      for (int h : {0, 1}) p.lse.set(0, i, h, 0, -std::numeric_limits<float>::infinity());
    }
    const Gradients expected = backward_of(p);
    for (int i : unseeing) {
      if (i % 2) p.ranges[static_cast<std::size_t>(i)] = {0, 170, 0, 0};
      p.query.set(0, i, 0, 3, query);
      p.grad_out.set(0, i, 1, 5, grad_out);
    }
    check_every_way(p, expected);
    for (int i : unseeing) {
      for (std::int64_t c = 0; c < head_dim; ++c) {
        CHECK((p.grad_query.get(0, i, 0, c) == 0.0 && p.grad_query.get(0, i, 1, c) == 0.0));
      }
    }
  }
}

TEST_CASE("a 16-bit row whose lse is -inf neither gets nor gives a gradient") {
  check_unseeing_rows(5.0f, -7.0f);
}

TEST_CASE("a 16-bit row whose lse is -inf may hold NaN") {
  check_unseeing_rows(kNan, kNan);
}

TEST_CASE("peaked 16-bit softmax keeps the precision of its gradients") {
  for (Dtype dtype : kShortDtypes) {
    for (std::int64_t head_dim : {128, 192, 256}) {
      Problem p = make_problem({dtype, 1, 100, 700, 2, 2, head_dim}, Mask::causal);
      p.scale *= 8.0f;  // scores of some 30
      prepare_backward(p, 0.0f);
      check_every_way(p, backward_of(p));
    }
  }
}

TEST_CASE("16-bit backward takes a scale of any sign, and none") {
  for (std::int64_t head_dim : {64, 128, 192, 256}) {
    for (float factor : {-1.0f, -2.0f, 0.0f}) {
      Problem p = make_problem({Dtype::bf16, 1, 130, 150, 2, 1, head_dim}, Mask::causal);
      p.scale *= factor;
      prepare_backward(p, 0.0f);
      check_every_way(p, backward_of(p));
    }
  }
}

// dq in order only; dk and dv always.
TEST_CASE("16-bit gradients have the same bits every time") {
  unsigned turn = 0;
  for (Mask mask : {Mask::full, Mask::causal, Mask::window_sinks, Mask::random}) {
    for (std::int64_t head_dim : {32, 64, 96, 128, 192, 256}) {
      const Shape shape = {kShortDtypes[turn++ % 2], 2, 1000, 1500, 4, 2, head_dim};
      Problem first = make_problem(shape, mask);
      prepare_backward(first, 1.0f);
      const OnDevice device(first);
      Problem again = make_problem(shape, mask);
      for (const Way& way : kWays) {
        INFO(describe(shape, mask) << ' ' << way);
        for (int run = 0; run < 3; ++run) {
          Problem& p = run == 0 ? first : again;
          for (const DeviceTensor* gradient : {&device.grad_query, &device.grad_key, &device.grad_value}) {
            cuda::clear(*gradient, nullptr);
          }
          device.add_gradients(0, 1500, way.attend());
          device.fetch_gradients_into(p);
          if (run == 0) continue;
          if (way.deterministic) CHECK(first.grad_query.memory() == again.grad_query.memory());
          CHECK(first.grad_key.memory() == again.grad_key.memory());
          CHECK(first.grad_value.memory() == again.grad_value.memory());
        }
      }
    }
  }
}

TEST_CASE("backward refuses 16-bit tensors that its kernels cannot take") {
  Problem p = make_problem({Dtype::fp16, 1, 8, 8, 2, 1, 16}, Mask::full);
  prepare_backward(p, 0.0f);
  const OnDevice device(p);
  const auto refuses = [&](const auto& spoil) {
    device.add_gradients(0, 8, [&](cuda::AttendBackward call) {
      spoil(call);
      CHECK_THROWS_AS(cuda::attend_backward(call, nullptr), Error);
    });
  };
  const auto past = [](const TensorView& tensor, int bytes) { return tensor.at(0, 0, 0) + bytes; };
  refuses([&](auto& call) { call.query.data = past(call.query, 2); });
  refuses([&](auto& call) { call.grad_out.data = past(call.grad_out, 8); });
  refuses([&](auto& call) { call.key.data = past(call.key, 2); });
  refuses([&](auto& call) { call.value.data = past(call.value, 4); });
  refuses([&](auto& call) { call.grad_query.data = past(call.grad_query, 4); });
  refuses([](auto& call) { call.grad_key.token_stride -= 1; });
  refuses([](auto& call) { call.grad_value.token_stride -= 1; });
  refuses([](auto& call) { call.grad_query.head_stride -= 1; });
  refuses([](auto& call) { call.grad_out.dtype = Dtype::bf16; });
  refuses([](auto& call) { call.grad_out.tokens = 7; });
  refuses([](auto& call) { call.delta.width = 2; });
  refuses([](auto& call) { call.grad_key.tokens = 7; });
  refuses([](auto& call) { call.scratch = nullptr; });
  refuses([](auto& call) { call.last = true; });
  refuses([](auto& call) {
    call.last = true;
    call.key_out = call.value_out = call.grad_key;  // fp32
  });
  refuses([&](auto& call) {
    call.last = true;
    call.key_out = call.value_out = call.key;
    call.value_out.data = past(call.key, 2);
  });
}

}  // namespace
}  // namespace orrery::test
