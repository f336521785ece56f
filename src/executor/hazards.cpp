#include "executor/hazards.hpp"

#include <algorithm>

namespace orrery {
namespace {

struct Touch {
  Slice slice;
  int step;
};

// Who last wrote, and who has read since, each part of one buffer.
struct BufferHistory {
  std::vector<Touch> writes, reads;
};

void collect(const std::vector<Touch>& touches, const Slice& slice, int step, std::vector<int>& into) {
  for (const Touch& t : touches) {
    if (t.step != step && overlap(t.slice, slice)) into.push_back(t.step);
  }
}

// A write that covers an earlier touch comes after it, so whoever comes after the write comes after the touch as well.
// The touches of the step itself stay: an update reads before it writes.
void forget_covered(std::vector<Touch>& touches, const Slice& slice) {
  std::erase_if(touches, [&](const Touch& t) { return contains(slice, t.slice); });
}

}  // namespace

Dependencies::Dependencies(const RankProgram& program) {
  std::vector<BufferHistory> history(program.buffers.size());
  offsets_.reserve(program.steps.size() + 1);
  offsets_.push_back(0);
  std::vector<int> found;
  for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
    const Step& s = program.steps[static_cast<std::size_t>(step)];
    found.clear();
    for_each_access(s, [&](const Access& a) {
      BufferHistory& h = history[static_cast<std::size_t>(a.slice.buffer)];
      collect(h.writes, a.slice, step, found);
      if (a.mode != AccessMode::read) collect(h.reads, a.slice, step, found);
    });
    for_each_access(s, [&](const Access& a) {
      BufferHistory& h = history[static_cast<std::size_t>(a.slice.buffer)];
      if (a.mode == AccessMode::read) {
        h.reads.push_back({a.slice, step});
      } else {
        forget_covered(h.writes, a.slice);
        forget_covered(h.reads, a.slice);
        h.writes.push_back({a.slice, step});
      }
    });
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    steps_.insert(steps_.end(), found.begin(), found.end());
    offsets_.push_back(steps_.size());
  }
}

}  // namespace orrery
