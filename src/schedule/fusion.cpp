// Fusion: from a program to the same program with fewer steps.
//
// Where the attends that touch cleared rows first cover them exactly, they begin these rows, and nobody need clear
// them. Where those that touch rows last cover exactly what is normalized or copied, they write the results themselves.
// The rows are those that a block owns alone: a state forward, the gradients of keys backward. The gradient of the
// queries, to which all blocks add, is cleared by the step that finds delta, which passes over rows of the same shape.
#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>

#include "orrery/schedule.hpp"

namespace orrery {
namespace {

std::int64_t area(const Slice& slice) {
  return slice.tokens * slice.heads;
}

bool touches(const Step& step, const Slice& slice) {
  bool found = false;
  for_each_access(step, [&](const Access& access) { found = found || overlap(access.slice, slice); });
  return found;
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
    const Attending* const attend = attending(step);
    bool fits = true, fresh = false;
    for_each_access(step, [&](const Access& access) {
      const Slice& touched = access.slice;
      if (!overlap(touched, rows)) return;
      bool met = false;
      for (int other : found) {
        const Slice& taken = attending(step_of(program, other))->owned;
        met = met || contains(taken, touched);
        fits = fits && (contains(taken, touched) || !overlap(taken, touched));  // or half of it is new
      }
      if (met) return;
      fits = fits && attend != nullptr && attend->owned == touched && contains(rows, touched);
      fresh = true;
    });
    if (!fits) return {};
    if (!fresh) continue;
    found.push_back(i);
    covered += area(attend->owned);
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
      : program_(program), count_(static_cast<int>(program.steps.size())), left_out_(program.steps.size()) {
    fused_ = program;
  }

  RankProgram run() && {
    for (int i = 0; i < count_; ++i) {
      const Step& step = step_of(program_, i);
      if (const Apply* clear = applying(step, Operation::clear)) begin(i, clear->at("into"));
      if (const Apply* normalize = applying(step, Operation::normalize)) {
        finish(i, normalize->at("into"), normalize->at("state"));
      }
      if (const Apply* copy = applying(step, Operation::copy)) finish(i, copy->at("into"), copy->at("from"));
    }
    std::vector<Step> steps;
    for (int i = 0; i < count_; ++i) {
      if (!left_out_[static_cast<std::size_t>(i)]) steps.push_back(std::move(fused(i)));
    }
    fused_.steps = std::move(steps);
    return std::move(fused_);
  }

 private:
  Step& fused(int i) { return fused_.steps[static_cast<std::size_t>(i)]; }
  Dtype dtype(const Slice& slice) const { return program_.buffers[static_cast<std::size_t>(slice.buffer)].dtype; }
  void leave_out(int i) { left_out_[static_cast<std::size_t>(i)] = true; }

  // Step `i` clears `rows`.
  void begin(int i, const Slice& rows) {
    const std::vector<int> firsts = cover(program_, rows, indices(i + 1, count_, 1));
    for (int first : firsts) attending(fused(first))->begins = true;
    if (!firsts.empty() || delta_clears(i, rows)) leave_out(i);
  }

  // A delta that passes over rows of the same shape, between which and step `i` nobody touches what this clears.
  bool delta_clears(int i, const Slice& rows) {
    const Buffer& buffer = program_.buffers[static_cast<std::size_t>(rows.buffer)];
    if (buffer.kind != BufferKind::grad_query || buffer.dtype != Dtype::fp32) return false;
    for (int d = 0; d < count_; ++d) {
      Apply* const delta = applying(fused(d), Operation::delta);
      if (delta == nullptr || delta->at("cleared").given()) continue;
      if (delta->at("into").tokens != rows.tokens || delta->at("into").heads != rows.heads) continue;
      if (touched(program_, rows, std::min(d, i) + 1, std::max(d, i))) continue;
      delta->at("cleared") = rows;
      return true;
    }
    return false;
  }

  // Step `i` makes results `into` of `rows`.
  void finish(int i, const Slice& into, const Slice& rows) {
    const std::vector<int> lasts = cover(program_, rows, indices(i - 1, -1, -1));
    // They write the results earlier than the program says, so nobody may touch these in between; nor the rows later.
    if (lasts.empty() || touched(program_, rows, i + 1, count_)) return;
    for (int last : lasts) {
      const auto* backward = std::get_if<AttendBackward>(&step_of(program_, last));
      if (backward != nullptr && dtype(into) != dtype(backward->key_value)) return;
      if (touched(program_, into, last + 1, i)) return;
    }
    for (int last : lasts) {
      const Slice& part = attending(step_of(program_, last))->owned;
      attending(fused(last))->results = {into.buffer, into.token_begin + part.token_begin - rows.token_begin,
                                         part.tokens, into.head_begin + part.head_begin - rows.head_begin, part.heads};
    }
    leave_out(i);
  }

  const RankProgram& program_;
  const int count_;
  RankProgram fused_;
  std::vector<bool> left_out_;
};

}  // namespace

RankProgram fuse(const RankProgram& program) {
  return Fusion(program).run();
}

}  // namespace orrery
