// Sanitizers slow a test some tenfold, and look for other faults than wrong numbers. An ordinary build runs all
// cases of a product; a build with a sanitizer runs the first and then each thirteenth. No loop has a multiple of
// thirteen values, so that in a long product each value has its turn.
#pragma once

namespace orrery::test {

class Cases {
 public:
  bool runs_next() { return next_++ % kStride == 0; }

 private:
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  static constexpr int kStride = 13;
#else
  static constexpr int kStride = 1;
#endif
  int next_ = 0;
};

}  // namespace orrery::test
