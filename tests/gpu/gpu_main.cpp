// Tests that need a CUDA device are skipped where there is none: the exit code is the one that CTest is told of.
#include <cstdio>

#include "orrery/device.hpp"
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;
  if (orrery::cuda_devices().empty()) {
    std::puts("skipped: no CUDA device");
    return kSkipped;
  }
  return Catch::Session().run(argc, argv);
}
