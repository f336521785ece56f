// All ranks of a plan, walked in program order on provenance: a step begins when every earlier step of its rank is
// complete, and an exchange is complete when all its transfers have met their partners.
//
// Links and backends do not run it so. They start what they can, and hold back what they must; but whatever they hold
// back waits for earlier steps of its rank alone, which here it waits for in any case. So what comes to its end here
// does so in every order that they may choose (docs/design/0003-checker.md).
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "backend/coverage/effects.hpp"
#include "executor/walk.hpp"

namespace orrery::coverage {

class CoverageWorld final : private Walk::Client {
 public:
  // The programs must outlive it.
  CoverageWorld(Context& context, const std::vector<RankProgram>& programs);
  CoverageWorld(const CoverageWorld&) = delete;
  CoverageWorld& operator=(const CoverageWorld&) = delete;

  // Runs until everything is complete, or nothing can move; then reports the deadlock and returns false.
  bool run();

  Effects& rank(int rank) { return ranks_[static_cast<std::size_t>(rank)].effects; }

 private:
  struct Rank {
    Effects effects;
    std::vector<int> nodes;  // by step; of an exchange the first of its receives
  };

  void begin(int rank, int step) override;
  void meet(const Walk::Message& message) override;
  void transfer(const Walk::Message& message);
  void report_deadlock();
  std::string whereabouts(int rank) const;

  Context& context_;
  std::deque<Rank> ranks_;
  Walk walk_;
};

}  // namespace orrery::coverage
