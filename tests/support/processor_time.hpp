// Processor time, in which a busy machine does not count. What it is compared with is more or less of the same work, so
// that a slow machine does not count either.
#pragma once

#include <ctime>

namespace orrery::test {

double processor_seconds(const auto& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

// Of ten times as much work, or a little more: whether it took longer in proportion, and not to the square. Both in
// seconds; what takes less than 50 ms is not judged.
inline bool in_proportion(double few, double ten_times_as_many) {
  return ten_times_as_many < 30 * few + 0.05;
}

}  // namespace orrery::test
