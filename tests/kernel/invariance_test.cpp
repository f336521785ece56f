// What must not change a result: the number of threads (not one bit of it), and, but for rounding, the instruction set.
#include <hwy/targets.h>

#include "kernel/problem.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

TEST_CASE("the number of threads changes no bit") {
  const Shape shapes[] = {{Dtype::fp32, 1, 500, 700, 1, 1, 128},  // one unit, many key blocks
                          {Dtype::bf16, 2, 200, 300, 4, 2, 64},
                          {Dtype::fp32, 1, 97, 1100, 6, 3, 40}};
  for (const Shape& shape : shapes) {
    for (Mask mask : {Mask::causal, Mask::random}) {
      INFO(describe(shape, mask));
      const auto ranges = key_ranges(mask, static_cast<int>(shape.query_len), static_cast<int>(shape.key_len));
      ThreadPool alone(1);
      Problem expected(shape, ranges);
      expected.forward(alone);
      expected.backward(alone);
      for (int threads : {2, 3, 7}) {
        ThreadPool pool(threads);
        Problem p(shape, ranges);
        p.forward(pool);
        p.backward(pool);
        CHECK(p.out.memory() == expected.out.memory());
        CHECK(p.lse.memory() == expected.lse.memory());
        CHECK(p.grad_query.memory() == expected.grad_query.memory());
        CHECK(p.grad_key.memory() == expected.grad_key.memory());
        CHECK(p.grad_value.memory() == expected.grad_value.memory());
      }
    }
  }
}

// Makes Highway choose one instruction set, until the end of the scope.
class OnlyTarget {
 public:
  explicit OnlyTarget(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  ~OnlyTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_CASE("every instruction set gives the answer of float64") {
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    const OnlyTarget only(rest & -rest);
    for (const Shape& shape : {Shape{Dtype::fp16, 1, 150, 170, 4, 2, 72}, Shape{Dtype::bf16, 1, 5, 99, 1, 1, 20}}) {
      const Mask mask = Mask::random;
      INFO(hwy::TargetName(rest & -rest) << ": " << describe(shape, mask));
      ThreadPool pool(1);
      Problem p(shape, key_ranges(mask, static_cast<int>(shape.query_len), static_cast<int>(shape.key_len)));
      p.forward(pool);
      p.backward(pool);
      const auto forward = kernels::reference::forward(p.query, p.key, p.value, p.scale, p.admits());
      const auto backward =
          kernels::reference::backward(p.query, p.key, p.value, p.grad_out, forward, p.scale, p.admits());
      CHECK(compare(p.out, forward.out).rel_l2 <= 2e-6);
      CHECK(compare(p.lse, forward.lse, Order::heads_tokens).rel_l2 <= 2e-6);
      CHECK(compare(p.grad_query, backward.grad_query).rel_l2 <= 5e-6);
      CHECK(compare(p.grad_key, backward.grad_key).rel_l2 <= 5e-6);
      CHECK(compare(p.grad_value, backward.grad_value).rel_l2 <= 5e-6);
    }
  }
}

}  // namespace
}  // namespace orrery::test
