#include "launch/clocks.hpp"

#include "support/catch.hpp"

using namespace orrery;
using launch::BarrierTimes;

TEST_CASE("barriers bound how far the clocks of two hosts are apart") {
  // The clock of the second node is 5 s ahead. Rank 1 enters the first barrier last, and leaves the second late.
  const BarrierTimes first{{10.000, 11.000}, {10.012, 11.003}}, neighbour{{10.001, 11.001}, {10.013, 11.004}},
      far{{15.010, 16.002}, {15.011, 16.020}};
  const auto offsets = launch::clock_offsets({0, 0, 1}, {first, neighbour, far});
  REQUIRE(offsets.size() == 2);
  CHECK(offsets[0].seconds == 0);
  CHECK(offsets[0].error == 0);
  // At least 15.010 - 10.012 and 16.002 - 11.003; at most 15.011 - 10.000 and 16.020 - 11.000.
  CHECK(offsets[1].seconds == Approx((4.999 + 5.011) / 2));
  CHECK(offsets[1].error == Approx((5.011 - 4.999) / 2));
  CHECK(std::abs(offsets[1].seconds - 5) <= offsets[1].error);
}

TEST_CASE("timelines of one process begin at zero and keep their distance") {
  run_in_process(2, {.timeout_seconds = 60}, [](World& world) {
    std::vector<Timeline> timelines(2);
    timelines[0].began = 1000.25;
    timelines[1].began = 1000.75;
    if (world.rank() > 0) timelines.clear();
    launch::share_clock(world, timelines);
    if (world.rank() > 0) return;
    REQUIRE(timelines[0].began == 0);
    REQUIRE(timelines[1].began == 0.5);
    REQUIRE(timelines[1].clock_error == 0);
  });
}
