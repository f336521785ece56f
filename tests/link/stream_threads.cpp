// The device link between ranks that are threads: what every such link must do, on several numbers of ranks, which
// share the devices there are. Ends with 77 where there is none.
#include <cstdio>

#include "link/stream_conformance.hpp"

int main() {
  using namespace orrery;
  const int devices = static_cast<int>(cuda_devices().size());
  if (devices == 0) {
    std::puts("skipped: no CUDA device");
    return 77;
  }
  for (const int ranks : {1, 2, 3, 4}) {
    try {
      run_in_process(ranks, {.timeout_seconds = 60}, [&](World& world) {
        test::conform_streams(world, {DeviceKind::cuda, world.rank() % devices});
      });
    } catch (const Error& error) {
      std::fprintf(stderr, "%d ranks: %s\n", ranks, error.what());
      return static_cast<int>(error.code());
    }
  }
  return 0;
}
