#include "gpu/world/graph.hpp"

#include "support/catch.hpp"

using namespace orrery;
using namespace orrery::test;

namespace {

void captured(int ranks, bool portable_kernels = false) {
  run_in_process(ranks, {.timeout_seconds = 60}, [&](World& world) {
    graph_gives_the_bits_of_a_run(world, {DeviceKind::cuda, 0}, portable_kernels);
  });
}

}  // namespace

TEST_CASE("a graph of forward and backward gives the bits of a run") {
  REQUIRE_NOTHROW(captured(1));
  REQUIRE_NOTHROW(captured(1, true));
}

TEST_CASE("ranks that are threads are not captured") {
  REQUIRE_THROWS_WITH(captured(2), ContainsSubstring("cannot be captured"));
}

TEST_CASE("a stream repeats what was recorded on it") {
  const Device device = {DeviceKind::cuda, 0};
  DeviceStream stream(device);
  const DeviceMemory memory(device, 4, "a test");
  const auto value = [&] {
    int found = -1;
    copy_bytes(&found, memory.data(), sizeof found);
    return found;
  };
  const auto set = [&](int byte) {
    check(cudaMemsetAsync(memory.data(), byte, sizeof(int), static_cast<cudaStream_t>(stream.handle())));
  };
  REQUIRE_THROWS_WITH(stream.replay(), ContainsSubstring("nothing was recorded"));
  REQUIRE_THROWS_WITH(DeviceStream(Device{}), ContainsSubstring("CPU"));
  REQUIRE_THROWS_AS(stream.record([] { refuse("no"); }), Error);
  for (int byte : {1, 2}) {
    set(0);
    stream.record([&] { set(byte); });
    stream.synchronize();
    REQUIRE(value() == 0);
    for (int launch = 0; launch < 2; ++launch) {
      stream.replay();
      stream.synchronize();
      REQUIRE(value() == byte * 0x01010101);
      set(0);
    }
  }
}
