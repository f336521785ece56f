// Division by a number that is fixed when a kernel is launched, as a multiplication and a shift. The small kernels take
// an index apart for every 16 bytes they move, and true divisions would cost more than the move.
#pragma once

#include <cstdint>

namespace orrery::kernels::cuda {

class Divisor {
 public:
  struct Division {
    std::int64_t quotient, rest;
  };

  Divisor() = default;
  // divisor >= 1. With s = ceil(log2 divisor) and multiplier = floor(2^32 (2^s - divisor) / divisor) + 1, n / divisor
  // is (n + high word of n * multiplier) >> s for every n of 32 bits (Granlund and Montgomery, 1994).
  explicit Divisor(std::int64_t divisor) : divisor_(divisor) {
    if (divisor >= kSmall) {  // n >> 31 is 0, as the quotient of a small n is
      shift_ = 31;
      return;
    }
    while ((std::int64_t{1} << shift_) < divisor) ++shift_;
    const auto d = static_cast<std::uint64_t>(divisor);
    multiplier_ = static_cast<std::uint32_t>((((std::uint64_t{1} << shift_) - d) << 32) / d + 1);
  }

  // n >= 0.
  __device__ Division divide(std::int64_t n) const {
    std::int64_t quotient;
    if (n < kSmall) {  // so that the sum below has 32 bits
      const auto small = static_cast<std::uint32_t>(n);
      quotient = (__umulhi(small, multiplier_) + small) >> shift_;
    } else {
      quotient = n / divisor_;
    }
    return {quotient, n - quotient * divisor_};
  }

 private:
  static constexpr std::int64_t kSmall = std::int64_t{1} << 31;

  std::int64_t divisor_ = 1;
  std::uint32_t multiplier_ = 0;
  int shift_ = 0;
};

}  // namespace orrery::kernels::cuda
