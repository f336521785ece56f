// Products of a warpgroup against sums of small integers, which are exact.
#include <cmath>
#include <random>

#include "gpu/kernel/sm90/image.hpp"
#include "gpu/kernel/sm90/probes.hpp"
#include "support/catch.hpp"

namespace orrery::test::sm90 {
namespace {

constexpr int kThreads = 128, kLargest = 4;
constexpr ProductForm kForms[] = {{false, false, false}, {false, false, true}, {false, true, false},
                                  {false, true, true},   {true, false, false}, {true, false, true}};

// The bits of an integer of at most kLargest.
std::uint16_t bits_of(Dtype dtype, int value) {
  constexpr std::uint16_t kBf16[] = {0, 0x3f80, 0x4000, 0x4040, 0x4080}, kFp16[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};
  const std::uint16_t magnitude = (dtype == Dtype::bf16 ? kBf16 : kFp16)[std::abs(value)];
  return static_cast<std::uint16_t>(magnitude | (value < 0 ? 0x8000 : 0));
}
constexpr std::uint16_t kNan = 0x7fff;  // of both dtypes

// A[64][kDepth] and B[kDepth][n] of random integers.
struct Factors {
  Factors(Dtype dtype_, int n_) : dtype(dtype_), n(n_), a(kProductRows * kDepth), b(kDepth * n_) {
    std::mt19937 random(static_cast<unsigned>(n));
    for (int& value : a) value = static_cast<int>(random() % (2 * kLargest + 1)) - kLargest;
    for (int& value : b) value = static_cast<int>(random() % (2 * kLargest + 1)) - kLargest;
  }
  int a_at(int row, int k) const { return a[static_cast<std::size_t>(row * kDepth + k)]; }
  int b_at(int k, int column) const { return b[static_cast<std::size_t>(k * n + column)]; }

  std::vector<std::uint16_t> a_image(ProductForm form) const {
    if (form.a_in_registers) return a_registers();
    if (form.a_across) {
      return image_of(kDepth, kProductRows, kNan, [&](int k, int row) { return bits_of(dtype, a_at(row, k)); });
    }
    return image_of(kProductRows, kDepth, kNan, [&](int row, int k) { return bits_of(dtype, a_at(row, k)); });
  }
  std::vector<std::uint16_t> b_image(ProductForm form) const {
    if (form.b_across) {
      return image_of(kDepth, n, kNan, [&](int k, int column) { return bits_of(dtype, b_at(k, column)); });
    }
    return image_of(n, kDepth, kNan, [&](int column, int k) { return bits_of(dtype, b_at(k, column)); });
  }
  // Register i of a step: row g, or g + 8 if i is odd, and columns 2q, 2q + 1, eight further from i = 2 on.
  std::vector<std::uint16_t> a_registers() const {
    std::vector<std::uint16_t> elements;
    for (int thread = 0; thread < kThreads; ++thread) {
      for (int step = 0; step < kDepth / 16; ++step) {
        for (int i = 0; i < 4; ++i) {
          const int row = thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8;
          const int k = step * 16 + thread % 4 * 2 + i / 2 * 8;
          elements.push_back(bits_of(dtype, a_at(row, k)));
          elements.push_back(bits_of(dtype, a_at(row, k + 1)));
        }
      }
    }
    return elements;
  }
  // Of each thread's registers: those of `before` and the product.
  std::vector<float> added_to(const std::vector<float>& before) const {
    std::vector<float> d = before;
    for (int thread = 0; thread < kThreads; ++thread) {
      for (int i = 0; i < n / 2; ++i) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
        const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
        int sum = 0;
        for (int k = 0; k < kDepth; ++k) sum += a_at(row, k) * b_at(k, column);
        d[static_cast<std::size_t>(thread * (n / 2) + i)] += static_cast<float>(sum);
      }
    }
    return d;
  }

  Dtype dtype;
  int n;
  std::vector<int> a, b;
};

std::vector<float> registers_of(int n, float (*value)(int)) {
  std::vector<float> d(static_cast<std::size_t>(kThreads * n / 2));
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = value(static_cast<int>(i));
  return d;
}

template <typename Check>
void for_each_product(const Check& check) {
  for (Dtype dtype : {Dtype::bf16, Dtype::fp16}) {
    for (int n : kProductWidths) {
      const Factors factors(dtype, n);
      for (const ProductForm& form : kForms) {
        INFO(to_string(dtype) << ", N = " << n << ", A " << (form.a_in_registers ? "in registers" : "in shared memory")
                              << (form.a_across ? " across" : " along") << " rows, B "
                              << (form.b_across ? "across" : "along") << " rows");
        check(factors, form);
      }
    }
  }
}

TEST_CASE("every form of a product adds exactly what its operands hold") {
  for_each_product([](const Factors& f, const ProductForm& form) {
    const std::vector<float> before = registers_of(f.n, [](int i) { return static_cast<float>(i % 1021 - 500); });
    const bool same = product(f.dtype, f.n, form, f.a_image(form), f.b_image(form), before, true) == f.added_to(before);
    CHECK(same);
  });
}

TEST_CASE("a product that does not add overwrites whatever was there") {
  for_each_product([](const Factors& f, const ProductForm& form) {
    const std::vector<float> garbage = registers_of(f.n, [](int i) { return i % 3 == 0 ? NAN : 1e30f; });
    const std::vector<float> nothing = registers_of(f.n, [](int) { return 0.0f; });
    const bool same =
        product(f.dtype, f.n, form, f.a_image(form), f.b_image(form), garbage, false) == f.added_to(nothing);
    CHECK(same);
  });
}

TEST_CASE("a matrix whose chunks are not exchanged is another matrix") {
  for_each_product([](const Factors& f, const ProductForm& form) {
    const std::vector<std::uint16_t> b = f.b_image(form);
    std::vector<std::uint16_t> straight(b.size());
    for (std::size_t i = 0; i < b.size(); ++i) straight[i ^ i / 64 % 8 * 8] = b[i];
    const std::vector<float> nothing = registers_of(f.n, [](int) { return 0.0f; });
    const bool same = product(f.dtype, f.n, form, f.a_image(form), straight, nothing, true) == f.added_to(nothing);
    CHECK_FALSE(same);
  });
}

}  // namespace
}  // namespace orrery::test::sm90
