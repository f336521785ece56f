#include "link/conformance.hpp"

#include "link/allocations.hpp"
#include "link/conformance/rings.hpp"
#include "orrery/conformance.hpp"

namespace orrery::test {

using namespace conformance;

void conform_and_allocate_nothing(World& world) {
  orrery::conform(world);
  // Between the barriers every rank is in a run or uncounted, so that a count on one rank speaks of the runs of all.
  std::unique_ptr<Rings> rings;
  {
    const UncountedAllocations uncounted;
    rings = std::make_unique<Rings>(world, true);
    run_all(*rings->session, rings->steps * kRingLanes);
    world.barrier();
  }
  const long before = allocations();
  run_all(*rings->session, rings->steps * kRingLanes);
  const long after = allocations();
  {
    const UncountedAllocations uncounted;
    world.barrier();
    expect(after == before, after - before, " allocations in a run");
  }
}

}  // namespace orrery::test
