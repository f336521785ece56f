#include "kernels/host/peak.hpp"
#include "support/catch.hpp"

namespace orrery::test {

TEST_CASE("the measured peak is that of a real core") {
  CHECK(kernels::measured_fma_peak_flops() > 1e8);
  CHECK(kernels::measured_fma_peak_flops() < 2e12);
  CHECK(!kernels::simd_target_name().empty());
}

}  // namespace orrery::test
