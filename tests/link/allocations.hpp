// Counts what a program allocates with operator new, in all threads but those that ask not to be counted.
#pragma once

namespace orrery::test {

long allocations();

// While it lives, what this thread allocates does not count.
class UncountedAllocations {
 public:
  UncountedAllocations();
  ~UncountedAllocations();
  UncountedAllocations(const UncountedAllocations&) = delete;
  UncountedAllocations& operator=(const UncountedAllocations&) = delete;
};

}  // namespace orrery::test
