#include "backend/cuda/fusion.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>

namespace orrery::cuda {
namespace {

std::int64_t area(const Slice& slice) {
  return slice.tokens * slice.heads;
}

bool touches(const Step& step, const Slice& slice) {
  bool found = false;
  for_each_access(step, [&](const Access& access) { found = found || overlap(access.slice, slice); });
  return found;
}

// The rows that an attend alone adds to while it runs; null for other steps.
const Slice* owned_rows(const Step& step) {
  if (const auto* attend = std::get_if<Attend>(&step)) return &attend->state;
  if (const auto* attend = std::get_if<AttendBackward>(&step)) return &attend->grad_key_value;
  return nullptr;
}

const Step& step_of(const RankProgram& program, int i) {
  return program.steps[static_cast<std::size_t>(i)];
}

// Of the attends that own parts of `rows`, met in the order of `steps`, those that touch theirs before any other step
// does: all of them together exactly `rows`, or none.
std::vector<int> cover(const RankProgram& program, const Slice& rows, const std::vector<int>& steps) {
  std::vector<int> found;
  std::int64_t covered = 0;
  for (int i : steps) {
    const Step& step = step_of(program, i);
    const Slice* const owned = owned_rows(step);
    bool fits = true, fresh = false;
    for_each_access(step, [&](const Access& access) {
      const Slice& touched = access.slice;
      if (!overlap(touched, rows)) return;
      bool met = false;
      for (int other : found) {
        const Slice& taken = *owned_rows(step_of(program, other));
        met = met || contains(taken, touched);
        fits = fits && (contains(taken, touched) || !overlap(taken, touched));  // or half of it is new
      }
      if (met) return;
      fits = fits && owned != nullptr && *owned == touched && contains(rows, touched);
      fresh = true;
    });
    if (!fits) return {};
    if (!fresh) continue;
    found.push_back(i);
    covered += area(*owned);
    if (covered == area(rows)) return found;
  }
  return {};
}

std::vector<int> indices(int begin, int end, int by) {
  std::vector<int> list;
  for (int i = begin; i != end; i += by) list.push_back(i);
  return list;
}

bool touched(const RankProgram& program, const Slice& rows, int begin, int end) {
  for (int i = begin; i < end; ++i) {
    if (touches(step_of(program, i), rows)) return true;
  }
  return false;
}

class Fusion {
 public:
  explicit Fusion(const RankProgram& program)
      : program_(program), count_(static_cast<int>(program.steps.size())), notes_(program.steps.size()) {}

  std::vector<StepFusion> find() && {
    for (int i = 0; i < count_; ++i) {
      const Step& step = step_of(program_, i);
      if (const auto* clear = std::get_if<Clear>(&step)) begin(i, clear->into);
      if (const auto* normalize = std::get_if<Normalize>(&step)) finish(i, normalize->into, normalize->state);
      if (const auto* copy = std::get_if<Copy>(&step)) finish(i, copy->into, copy->from);
    }
    return std::move(notes_);
  }

 private:
  StepFusion& note(int i) { return notes_[static_cast<std::size_t>(i)]; }
  Dtype dtype(const Slice& slice) const { return program_.buffers[static_cast<std::size_t>(slice.buffer)].dtype; }

  // Step `i` clears `rows`.
  void begin(int i, const Slice& rows) {
    std::vector<int> takers = cover(program_, rows, indices(i + 1, count_, 1));
    if (takers.empty()) takers = delta_beside(i, rows);
    for (int taker : takers) note(taker).clear = i;
    note(i).skipped = !takers.empty();
  }

  // A delta that passes over rows of the same shape, between which and step `i` nobody touches what this clears.
  std::vector<int> delta_beside(int i, const Slice& rows) {
    if (program_.buffers[static_cast<std::size_t>(rows.buffer)].kind != BufferKind::grad_query) return {};
    for (int d = 0; d < count_; ++d) {
      const auto* delta = std::get_if<Delta>(&step_of(program_, d));
      if (delta == nullptr || note(d).clear >= 0) continue;
      if (delta->into.tokens != rows.tokens || delta->into.heads != rows.heads) continue;
      if (!touched(program_, rows, std::min(d, i) + 1, std::max(d, i))) return {d};
    }
    return {};
  }

  // Step `i` makes results `into` of `rows`.
  void finish(int i, const Slice& into, const Slice& rows) {
    const std::vector<int> lasts = cover(program_, rows, indices(i - 1, -1, -1));
    // They write the results earlier than the program says, so nobody may touch these in between; nor the rows later.
    if (touched(program_, rows, i + 1, count_)) return;
    for (int attend : lasts) {
      const auto* backward = std::get_if<AttendBackward>(&step_of(program_, attend));
      if (backward != nullptr && dtype(into) != dtype(backward->key_value)) return;
      if (touched(program_, into, attend + 1, i)) return;
    }
    for (int attend : lasts) {
      const Slice& part = *owned_rows(step_of(program_, attend));
      note(attend).finish = i;
      note(attend).output = {into.buffer, into.token_begin + part.token_begin - rows.token_begin, part.tokens,
                             into.head_begin + part.head_begin - rows.head_begin, part.heads};
    }
    note(i).skipped = !lasts.empty();
  }

  const RankProgram& program_;
  const int count_;
  std::vector<StepFusion> notes_;
};

}  // namespace

std::vector<StepFusion> fuse(const RankProgram& program) {
  return Fusion(program).find();
}

}  // namespace orrery::cuda
