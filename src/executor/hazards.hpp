// Hazards: from program order to what really depends on what. A step must come after the last writers of what it reads,
// and after all readers and writers of what it overwrites; everything else may overlap. Slices are compared exactly, so
// two halves of one buffer do not wait for each other.
#pragma once

#include <span>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

class Dependencies {
 public:
  explicit Dependencies(const RankProgram& program);
  // As given, for each step: to see whether wrong ones are found out.
  explicit Dependencies(const std::vector<std::vector<int>>& of_steps);

  // The earlier steps that must be complete before this one may touch memory, ascending. A step that another one in the
  // list already waits for may be left out.
  std::span<const int> of(int step) const {
    const auto s = static_cast<std::size_t>(step);
    return std::span<const int>(steps_).subspan(offsets_[s], offsets_[s + 1] - offsets_[s]);
  }

 private:
  std::vector<std::size_t> offsets_;
  std::vector<int> steps_;
};

}  // namespace orrery
