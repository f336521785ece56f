#include "backend/cuda/gaps.hpp"

#include <algorithm>
#include <cstddef>
#include <variant>

namespace orrery::cuda {
namespace {

// The parts of `whole` outside of `part`, which lie in one buffer.
void append_difference(const Slice& whole, const Slice& part, std::vector<Slice>& into) {
  if (!overlap(whole, part)) {
    into.push_back(whole);
    return;
  }
  const auto add = [&](std::int64_t token_begin, std::int64_t token_end, int head_begin, int head_end) {
    if (token_begin >= token_end || head_begin >= head_end) return;
    into.push_back({whole.buffer, token_begin, token_end - token_begin, head_begin, head_end - head_begin});
  };
  const std::int64_t token_end = whole.token_begin + whole.tokens;
  const int head_end = whole.head_begin + whole.heads;
  const std::int64_t first = std::max(whole.token_begin, part.token_begin);
  const std::int64_t last = std::min(token_end, part.token_begin + part.tokens);
  add(whole.token_begin, first, whole.head_begin, head_end);
  add(last, token_end, whole.head_begin, head_end);
  add(first, last, whole.head_begin, part.head_begin);
  add(first, last, part.head_begin + part.heads, head_end);
}

std::vector<Slice> without(const std::vector<Slice>& slices, const Slice& part) {
  std::vector<Slice> left;
  for (const Slice& slice : slices) append_difference(slice, part, left);
  return left;
}

Slice intersection(const Slice& a, const Slice& b) {
  const std::int64_t token_begin = std::max(a.token_begin, b.token_begin);
  const std::int64_t token_end = std::min(a.token_begin + a.tokens, b.token_begin + b.tokens);
  const int head_begin = std::max(a.head_begin, b.head_begin);
  const int head_end = std::min(a.head_begin + a.heads, b.head_begin + b.heads);
  return {a.buffer, token_begin, token_end - token_begin, head_begin, head_end - head_begin};
}

}  // namespace

std::vector<Slice> gaps(const RankProgram& program) {
  std::vector<std::vector<Slice>> unwritten(program.buffers.size());
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& b = program.buffers[i];
    // What is kept was written by the forward pass, and its gaps cleared.
    const bool fresh = b.role == BufferRole::workspace || (b.role == BufferRole::kept && program.pass == Pass::forward);
    if (b.kind == BufferKind::key_value && fresh) {
      unwritten[i].push_back({static_cast<int>(i), 0, b.tokens, 0, b.heads});
    }
  }
  std::vector<Slice> found;
  for (const Step& step : program.steps) {
    const bool attends = std::holds_alternative<Attend>(step) || std::holds_alternative<AttendBackward>(step);
    for_each_access(step, [&](const Access& access) {
      std::vector<Slice>& left = unwritten[static_cast<std::size_t>(access.slice.buffer)];
      if (left.empty() || (!attends && access.mode == AccessMode::read)) return;
      for (const Slice& slice : left) {
        if (attends && overlap(slice, access.slice)) found.push_back(intersection(slice, access.slice));
      }
      left = without(left, access.slice);
    });
  }
  return found;
}

}  // namespace orrery::cuda
