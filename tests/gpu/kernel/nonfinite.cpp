// Values that are not finite, behind a mask: one NaN or infinity in Q, K, V or dO reaches, on a device too, the rows
// that the definition says, and no other. The other rows keep their precision.
#include <cmath>
#include <limits>

#include "gpu/kernel/on_device.hpp"
#include "kernels/cuda/portable/backward/attend_backward.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

constexpr Mask kCuttingMasks[] = {Mask::causal, Mask::documents,  Mask::window_sinks,
                                  Mask::random, Mask::empty_rows, Mask::window};

struct Reached {
  std::int64_t wrongly = 0;   // rows that are not finite where the definition's are
  std::int64_t unshown = 0;   // ... that are finite where the definition's are not
  std::int64_t expected = 0;  // ... that are not finite in the definition
};

// Compares the finiteness of rows, and makes zeros of those that are not finite in either, for compare(). Element (b,
// t, h, c) of the definition is expected[at(b, t, h) * width + c].
template <typename At>
Reached take_out(Tensor& actual, std::vector<double>& expected, const At& at) {
  Reached reached;
  const TensorView& v = actual.view();
  const auto lost = [](double x) { return std::isnan(x) || x == std::numeric_limits<double>::infinity(); };
  for (std::int64_t b = 0; b < v.batch; ++b) {
    for (std::int64_t t = 0; t < v.tokens; ++t) {
      for (std::int64_t h = 0; h < v.heads; ++h) {
        double* const row = expected.data() + at(b, t, h) * v.width;
        bool here = false, there = false;
        for (std::int64_t c = 0; c < v.width; ++c) {
          const bool minus_infinity_counts = v.width > 1;  // it is the lse of a row that sees nothing
          here = here || lost(actual.get(b, t, h, c)) || (minus_infinity_counts && std::isinf(actual.get(b, t, h, c)));
          there = there || lost(row[c]) || (minus_infinity_counts && std::isinf(row[c]));
        }
        reached.wrongly += here && !there ? 1 : 0;
        reached.unshown += there && !here ? 1 : 0;
        reached.expected += there ? 1 : 0;
        if (!here && !there) continue;
        for (std::int64_t c = 0; c < v.width; ++c) {
          row[c] = 0;
          actual.set(b, t, h, c, 0.0f);
        }
      }
    }
  }
  return reached;
}

void check_rows(const char* which, Tensor& actual, std::vector<double> expected, double tolerance, bool shown,
                Order order = Order::tokens_heads) {
  const TensorView v = actual.view();
  const Reached reached = take_out(actual, expected, [&](auto b, auto t, auto h) {
    return order == Order::tokens_heads ? (b * v.tokens + t) * v.heads + h : (b * v.heads + h) * v.tokens + t;
  });
  const Difference difference = compare(actual, expected, order);
  INFO(which << ": " << reached.expected << " rows are to be reached; " << difference);
  CHECK(reached.wrongly == 0);
  if (shown) CHECK(reached.unshown == 0);
  CHECK((difference.rel_l2 <= tolerance || difference.max_abs <= 1e-5));
}

// Plants one value in the middle of a problem, and runs both passes, the forward one in two blocks of keys.
void check(const Shape& shape, Mask mask, Tensor Problem::*planted, float value, cuda::Kernels kernels) {
  INFO(describe(shape, mask) << ", " << value << " in "
                             << (planted == &Problem::query   ? "query"
                                 : planted == &Problem::key   ? "key"
                                 : planted == &Problem::value ? "value"
                                                              : "grad_out")
                             << (kernels == cuda::Kernels::best ? ", best kernels" : ", portable kernels"));
  Problem p = make_problem(shape, mask);
  Tensor& tensor = p.*planted;
  tensor.set(0, tensor.view().tokens / 2 + 3, 0, shape.head_dim / 2 + 1, value);
  const bool nan = std::isnan(value), fp32 = shape.dtype == Dtype::fp32;
  const double u = fp32 ? 2e-6 : rounding_of(shape.dtype);

  const auto forward = forward_of(p);
  prepare_backward(p, 0.0f);
  for (std::int64_t middle : {shape.key_len, shape.key_len / 2 + 5}) {
    const OnDevice device(p);
    const OnDevice::Forward attend = [&](cuda::AttendForward call) {
      call.kernels = kernels;
      cuda::attend_forward(call, nullptr);
    };
    device.fold(0, middle, true, middle == shape.key_len, attend);
    if (middle < shape.key_len) device.fold(middle, shape.key_len, false, true, attend);
    device.fetch_out_into(p);
    Problem result = make_problem(shape, mask);
    device.fetch_out_into(result);
    check_rows("out", result.out, forward.out, u, nan);
    check_rows("lse", result.lse, forward.lse, 1e-5, nan, Order::heads_tokens);
  }

  const auto backward = backward_of(p);
  for (bool deterministic : {true, false}) {
    const OnDevice device(p);
    device.add_gradients(0, shape.key_len, [&](cuda::AttendBackward call) {
      call.kernels = kernels;
      call.deterministic = deterministic;
      cuda::attend_backward(call, nullptr);
    });
    Problem result = make_problem(shape, mask);
    device.fetch_gradients_into(result);
    check_rows("dq", result.grad_query, backward.grad_query, fp32 ? 5e-6 : u, nan);
    check_rows("dk", result.grad_key, backward.grad_key, fp32 ? 5e-6 : u, nan);
    check_rows("dv", result.grad_value, backward.grad_value, fp32 ? 5e-6 : u, nan);
  }
}

template <typename Check>
void for_each_plant(const Check& check_one) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  constexpr Tensor Problem::*kPlanted[] = {&Problem::value, &Problem::key, &Problem::query, &Problem::grad_out};
  unsigned turn = 0;
  for (auto planted : kPlanted) {
    for (Mask mask : kCuttingMasks) {
      check_one(mask, planted, turn % 3 == 2 ? (turn % 2 == 0 ? kInfinity : -kInfinity) : kNan, turn);
      ++turn;
    }
  }
}

TEST_CASE("a 16-bit value that is not finite reaches only the rows that see it") {
  const std::int64_t head_dims[] = {64, 128, 96, 256, 192};
  for (cuda::Kernels kernels : {cuda::Kernels::portable, cuda::Kernels::best}) {
    for (Dtype dtype : kShortDtypes) {
      for_each_plant([&](Mask mask, Tensor Problem::*planted, float value, unsigned turn) {
        check({dtype, 1, 210, 270, 2, 1, head_dims[turn % 5]}, mask, planted, value, kernels);
      });
    }
  }
}

TEST_CASE("an fp32 value that is not finite reaches only the rows that see it") {
  const std::int64_t head_dims[] = {64, 128, 40, 256, 192};
  for_each_plant([&](Mask mask, Tensor Problem::*planted, float value, unsigned turn) {
    check({Dtype::fp32, 1, 150, 170, 2, 1, head_dims[turn % 5]}, mask, planted, value, cuda::Kernels::best);
  });
}

TEST_CASE("a document of values that are not finite leaves its neighbour right") {
  for (Tensor Problem::*planted : {&Problem::query, &Problem::key, &Problem::value, &Problem::grad_out}) {
    const Shape shape = {Dtype::bf16, 1, 300, 300, 4, 2, 128};
    Problem p = make_problem(shape, Mask::causal);
    for (int i = 0; i < 300; ++i) p.ranges[static_cast<std::size_t>(i)] = {i < 141 ? 0 : 141, i + 1, 0, 0};
    Tensor& tensor = p.*planted;
    tensor.fill([&](auto b, auto t, auto h, auto c) {
      return t < 141 ? tensor.get(b, t, h, c) : std::numeric_limits<double>::quiet_NaN();
    });
    const auto forward = forward_of(p);
    prepare_backward(p, 0.0f);
    const OnDevice device(p);
    device.fold(0, 300, true, true);
    device.add_gradients(0, 300);
    Problem result = make_problem(shape, Mask::causal);
    device.fetch_out_into(result);
    device.fetch_gradients_into(result);
    const double u = rounding_of(Dtype::bf16);
    const auto backward = backward_of(p);
    check_rows("out", result.out, forward.out, u, true);
    check_rows("dq", result.grad_query, backward.grad_query, u, true);
    check_rows("dk", result.grad_key, backward.grad_key, u, true);
    check_rows("dv", result.grad_value, backward.grad_value, u, true);
  }
}

}  // namespace
}  // namespace orrery::test
