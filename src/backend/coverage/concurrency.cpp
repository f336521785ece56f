#include "backend/coverage/concurrency.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <tuple>

namespace orrery::coverage {
namespace {

// What a step touches, in groups of one buffer, whether it writes, and slices of one length but for a factor of two. In
// each the slices stand by where they begin, so those that overlap another one are found by search, however many there
// are and however long the others.
struct Touches {
  struct Group {
    int buffer;
    bool written;
    int magnitude;  // 2^magnitude is the first power of two above the tokens of all its slices
    std::vector<Slice> slices;
  };
  std::vector<Group> groups;

  explicit Touches(const Step& step) {
    std::map<std::tuple<int, bool, int>, std::vector<Slice>> sorted;
    for_each_access(step, [&](const Access& a) {
      const auto magnitude = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(a.slice.tokens)));
      sorted[{a.slice.buffer, a.mode != AccessMode::read, magnitude}].push_back(a.slice);
    });
    for (auto& [key, slices] : sorted) {
      std::sort(slices.begin(), slices.end(),
                [](const Slice& a, const Slice& b) { return a.token_begin < b.token_begin; });
      groups.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), std::move(slices)});
    }
  }
};

// What the later step touches of what the earlier one writes, or writes of what that one touches.
std::optional<Slice> conflict(const Touches::Group& later, const Touches::Group& earlier) {
  if (later.buffer != earlier.buffer || !(later.written || earlier.written)) return {};
  for (const Slice& a : later.slices) {
    const std::int64_t first = a.token_begin - (std::int64_t{1} << earlier.magnitude);
    auto b = std::partition_point(earlier.slices.begin(), earlier.slices.end(),
                                  [&](const Slice& each) { return each.token_begin <= first; });
    for (; b != earlier.slices.end() && b->token_begin < a.token_begin + a.tokens; ++b) {
      if (overlap(a, *b)) return a;
    }
  }
  return {};
}

std::optional<Slice> conflict(const Touches& later, const Touches& earlier) {
  for (const Touches::Group& a : later.groups) {
    for (const Touches::Group& b : earlier.groups) {
      if (const auto slice = conflict(a, b)) return slice;
    }
  }
  return {};
}

class Concurrency {
 public:
  Concurrency(const RankProgram& program, const Dependencies& dependencies)
      : program_(program),
        dependencies_(dependencies),
        frontier_(program.steps.size(), -1),
        joined_at_(program.steps.size(), kNever),
        visited_(program.steps.size(), -1) {
    for (const Step& step : program.steps) touches_.emplace_back(step);
  }

  std::vector<Hazard> find() && {
    for (int step = 0; step < static_cast<int>(program_.steps.size()); ++step) {
      if (moves(step)) {
        exchange(step);
      } else {
        compute(step);
      }
    }
    return std::move(found_);
  }

 private:
  static constexpr int kNever = INT32_MAX;
  static std::size_t at(int step) { return static_cast<std::size_t>(step); }
  bool moves(int step) const { return std::holds_alternative<Exchange>(program_.steps[at(step)]); }

  // Computation runs behind all earlier computation, and behind the exchanges that it, or earlier computation, waits
  // for. All others of before may still be at work.
  void compute(int step) {
    for (int earlier : dependencies_.of(step)) {
      if (moves(earlier)) join(earlier, step);
    }
    std::erase_if(in_flight_, [&](int e) { return joined_at_[at(e)] != kNever; });
    for (int e : in_flight_) judge(step, e);
    computation_.push_back(step);
  }

  // Whoever waits for an exchange has waited for those before which it could not begin.
  void join(int e, int step) {
    if (joined_at_[at(e)] != kNever) return;
    joined_at_[at(e)] = step;
    for (int earlier : dependencies_.of(e)) {
      if (moves(earlier)) join(earlier, step);
    }
  }

  // An exchange runs behind the last computation that it waits for, and all before that; and behind the exchanges that
  // it waits for, with what these have waited for. All other steps of before may come as late as it, or later.
  void exchange(int step) {
    int& frontier = frontier_[at(step)];
    const auto complete = [&](int e) { return visited_[at(e)] == step || joined_at_[at(e)] <= frontier; };
    std::vector<int> behind{step};
    for (std::size_t i = 0; i < behind.size(); ++i) {
      const auto waits_for = dependencies_.of(behind[i]);
      for (int earlier : waits_for) frontier = std::max(frontier, moves(earlier) ? frontier_[at(earlier)] : earlier);
      for (int earlier : waits_for) {
        if (!moves(earlier) || complete(earlier)) continue;
        visited_[at(earlier)] = step;
        behind.push_back(earlier);
      }
    }
    for (auto c = computation_.rbegin(); c != computation_.rend() && *c > frontier; ++c) judge(step, *c);
    for (int e : exchanges_) {
      if (!complete(e)) judge(step, e);
    }
    exchanges_.push_back(step);
    in_flight_.push_back(step);
  }

  void judge(int step, int other) {
    if (const auto slice = conflict(touches_[at(step)], touches_[at(other)])) found_.push_back({step, other, *slice});
  }

  const RankProgram& program_;
  const Dependencies& dependencies_;
  std::vector<Touches> touches_;
  std::vector<int> frontier_;   // of an exchange: the last computation that is complete before it begins, or -1
  std::vector<int> joined_at_;  // of an exchange: the first computation that has waited for it
  std::vector<int> visited_;    // of an exchange: the last one that was found to wait for it
  std::vector<int> computation_, exchanges_, in_flight_;
  std::vector<Hazard> found_;
};

}  // namespace

std::vector<Hazard> hazards(const RankProgram& program, const Dependencies& dependencies) {
  return Concurrency(program, dependencies).find();
}

}  // namespace orrery::coverage
