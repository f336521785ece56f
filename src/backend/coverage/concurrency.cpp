#include "backend/coverage/concurrency.hpp"

#include <algorithm>
#include <optional>
#include <tuple>

namespace orrery::coverage {
namespace {

// What a step touches, by where it begins.
struct Touches {
  std::vector<Access> list;
  std::int64_t longest = 0;  // tokens of the longest slice

  explicit Touches(const Step& step) {
    for_each_access(step, [&](const Access& a) {
      list.push_back(a);
      longest = std::max(longest, a.slice.tokens);
    });
    std::sort(list.begin(), list.end(), [](const Access& a, const Access& b) { return place(a) < place(b); });
  }
  static std::pair<int, std::int64_t> place(const Access& a) { return {a.slice.buffer, a.slice.token_begin}; }
};

// What the later step touches of what the earlier one writes, or writes of what that one touches.
std::optional<Slice> conflict(const Touches& later, const Touches& earlier) {
  for (const Access& a : later.list) {
    const std::pair first(a.slice.buffer, a.slice.token_begin - earlier.longest);
    const std::pair end(a.slice.buffer, a.slice.token_begin + a.slice.tokens);
    auto b = std::partition_point(earlier.list.begin(), earlier.list.end(),
                                  [&](const Access& each) { return Touches::place(each) <= first; });
    for (; b != earlier.list.end() && Touches::place(*b) < end; ++b) {
      const bool both_read = a.mode == AccessMode::read && b->mode == AccessMode::read;
      if (!both_read && overlap(a.slice, b->slice)) return a.slice;
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
