#include "executor/hazards.hpp"

#include <algorithm>
#include <utility>

#include "schedule/row_set.hpp"

namespace orrery {
namespace {

struct Touch {
  RowSet rows;
  int step;
};

// Who last wrote, and who has read since, each part of one buffer.
struct BufferHistory {
  std::vector<Touch> writes, reads;
};

struct AccessedRows {
  RowSet rows;
  bool written;
};

// What a step touches. Only exchanges have many slices; those of other steps are too few to be worth joining.
void find_accesses(const Step& step, std::vector<AccessedRows>& into) {
  into.clear();
  if (const auto* exchange = std::get_if<Exchange>(&step)) {
    for (const bool receives : {false, true}) {
      const std::vector<Transfer>& transfers = receives ? exchange->receives : exchange->sends;
      std::vector<Slice> slices;
      slices.reserve(transfers.size());
      for (const Transfer& t : transfers) slices.push_back(t.slice);
      for (RowSet& rows : row_sets(std::move(slices))) into.push_back({std::move(rows), receives});
    }
    return;
  }
  for_each_access(step, [&](const Access& a) { into.push_back({RowSet(a.slice), a.mode != AccessMode::read}); });
}

void collect(const std::vector<Touch>& touches, const RowSet& rows, std::vector<int>& into) {
  for (const Touch& t : touches) {
    if (overlap(t.rows, rows)) into.push_back(t.step);
  }
}

// A write comes after the earlier touches of its rows, so whoever comes after the write comes after those as well.
void forget_covered(std::vector<Touch>& touches, const RowSet& written) {
  for (Touch& t : touches) t.rows.subtract(written);
  std::erase_if(touches, [](const Touch& t) { return t.rows.empty(); });
}

}  // namespace

Dependencies::Dependencies(const RankProgram& program) {
  std::vector<BufferHistory> history(program.buffers.size());
  offsets_.reserve(program.steps.size() + 1);
  offsets_.push_back(0);
  std::vector<AccessedRows> accessed;
  std::vector<int> found;
  for (int step = 0; step < static_cast<int>(program.steps.size()); ++step) {
    find_accesses(program.steps[static_cast<std::size_t>(step)], accessed);
    found.clear();
    for (const AccessedRows& a : accessed) {
      const BufferHistory& h = history[static_cast<std::size_t>(a.rows.buffer())];
      collect(h.writes, a.rows, found);
      if (a.written) collect(h.reads, a.rows, found);
    }
    for (AccessedRows& a : accessed) {
      BufferHistory& h = history[static_cast<std::size_t>(a.rows.buffer())];
      if (a.written) {
        forget_covered(h.writes, a.rows);
        forget_covered(h.reads, a.rows);
      }
      (a.written ? h.writes : h.reads).push_back({std::move(a.rows), step});
    }
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    steps_.insert(steps_.end(), found.begin(), found.end());
    offsets_.push_back(steps_.size());
  }
}

Dependencies::Dependencies(const std::vector<std::vector<int>>& of_steps) : offsets_{0} {
  for (const std::vector<int>& steps : of_steps) {
    steps_.insert(steps_.end(), steps.begin(), steps.end());
    offsets_.push_back(steps_.size());
  }
}

}  // namespace orrery
