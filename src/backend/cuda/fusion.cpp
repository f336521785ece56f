#include "backend/cuda/fusion.hpp"

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

// Of the attends on `state`, met in the order of `steps`, those that touch their rows before any other: all of them
// together exactly `state`, or none.
template <typename Steps>
std::vector<int> cover(const RankProgram& program, const Slice& state, const Steps& steps) {
  std::vector<int> found;
  std::int64_t covered = 0;
  for (int i : steps) {
    const Step& step = program.steps[static_cast<std::size_t>(i)];
    if (!touches(step, state)) continue;
    const auto* attend = std::get_if<Attend>(&step);
    if (attend == nullptr || !contains(state, attend->state)) return {};
    bool met = false;
    for (int earlier : found) {
      const Slice& other = std::get<Attend>(program.steps[static_cast<std::size_t>(earlier)]).state;
      if (!overlap(other, attend->state)) continue;
      if (!contains(other, attend->state)) return {};  // half of it is new
      met = true;
    }
    if (met) continue;
    found.push_back(i);
    covered += area(attend->state);
    if (covered == area(state)) return found;
  }
  return {};
}

std::vector<int> indices(int begin, int end, int by) {
  std::vector<int> list;
  for (int i = begin; i != end; i += by) list.push_back(i);
  return list;
}

}  // namespace

std::vector<StepFusion> fuse(const RankProgram& program) {
  const int count = static_cast<int>(program.steps.size());
  std::vector<StepFusion> fusion(program.steps.size());
  for (int i = 0; i < count; ++i) {
    const Step& step = program.steps[static_cast<std::size_t>(i)];
    if (const auto* clear = std::get_if<Clear>(&step)) {
      const std::vector<int> firsts = cover(program, clear->into, indices(i + 1, count, 1));
      for (int attend : firsts) fusion[static_cast<std::size_t>(attend)].clear = i;
      fusion[static_cast<std::size_t>(i)].skipped = !firsts.empty();
    } else if (const auto* normalize = std::get_if<Normalize>(&step)) {
      std::vector<int> lasts = cover(program, normalize->state, indices(i - 1, -1, -1));
      // They write the output earlier than the program says, so nobody may touch it in between; nor the state later.
      for (int attend : lasts) {
        for (int between : indices(attend + 1, i, 1)) {
          if (touches(program.steps[static_cast<std::size_t>(between)], normalize->into)) lasts = {};
        }
        if (lasts.empty()) break;
      }
      for (int after : indices(i + 1, count, 1)) {
        if (touches(program.steps[static_cast<std::size_t>(after)], normalize->state)) lasts = {};
      }
      for (int attend : lasts) {
        const Slice& rows = std::get<Attend>(program.steps[static_cast<std::size_t>(attend)]).state;
        StepFusion& note = fusion[static_cast<std::size_t>(attend)];
        note.normalize = i;
        note.output = {normalize->into.buffer,
                       normalize->into.token_begin + rows.token_begin - normalize->state.token_begin, rows.tokens,
                       normalize->into.head_begin + rows.head_begin - normalize->state.head_begin, rows.heads};
      }
      fusion[static_cast<std::size_t>(i)].skipped = !lasts.empty();
    }
  }
  return fusion;
}

}  // namespace orrery::cuda
