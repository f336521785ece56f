// Ranks that are processes, linked by NCCL, each with a CUDA graph of its own: `mpirun -n 2 test_gpu_graph_ranks`.
#include <cstdio>

#include "gpu/world/graph.hpp"
#include "support/shared_devices.hpp"

int main() {
  using namespace orrery;
  constexpr int kSkipped = 77;
  const int devices = static_cast<int>(cuda_devices().size());
  if (devices == 0) {
    std::puts("skipped: no CUDA device");
    return kSkipped;
  }
  const auto world = open_mpi_world({.timeout_seconds = 60, .device_link = "nccl"});
  test::let_ranks_share_devices(*world);
  try {
    test::graph_gives_the_bits_of_a_run(*world, {DeviceKind::cuda, world->rank() % devices});
  } catch (const Error& error) {
    world->abort(error.code(), error.what());
  }
  return 0;
}
