#include "gpu/world/graph.hpp"

#include "support/catch.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

void captured(int ranks) {
  run_in_process(ranks, {.timeout_seconds = 60}, [](World& world) {
    graph_gives_the_bits_of_a_run(world, {DeviceKind::cuda, 0});
  });
}

}  // namespace

TEST_CASE("a graph of forward and backward gives the bits of a run") {
  REQUIRE_NOTHROW(captured(1));
}

TEST_CASE("ranks that are threads are not captured") {
  REQUIRE_THROWS_WITH(captured(2), ContainsSubstring("cannot be captured"));
}
