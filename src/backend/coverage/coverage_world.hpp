// All ranks of a plan, run on provenance, each in the order of its program: a step begins when every earlier step of
// its rank is complete, and an exchange is complete when all its transfers have met their partners.
//
// Links and backends do not run it so. They start what they can, and hold back what they must; but whatever they hold
// back waits for earlier steps of its rank alone, which here it waits for in any case. So what comes to its end here
// does so in every order that they may choose (docs/design/0003-checker.md).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "backend/coverage/effects.hpp"
#include "orrery/backend.hpp"

namespace orrery::coverage {

class CoverageWorld;

// One rank's side of it, for the executor.
class CoverageBackend final : public Backend {
 public:
  CoverageBackend(CoverageWorld& world, int rank) : world_(world), rank_(rank) {}
  void begin_run() override {}
  void issue(int step) override;
  void end_run() override {}
  void abandon_run() noexcept override {}
  double began() const override { return 0; }
  StepTimes times(int) const override { return {}; }

 private:
  CoverageWorld& world_;
  int rank_;
};

class CoverageWorld {
 public:
  CoverageWorld(Context& context, const std::vector<RankProgram>& programs);

  void issue(int rank, int step);
  // Runs until everything issued is complete, or nothing can move; then reports the deadlock and returns false.
  bool run();

  Effects& rank(int rank) { return *ranks_[static_cast<std::size_t>(rank)].effects; }

 private:
  struct Posted {
    int rank, step;
    std::size_t index;  // among the sends or receives of the step
  };
  struct Rank {
    std::unique_ptr<Effects> effects;
    std::vector<int> nodes;  // by step; of an exchange the first of its receives
    std::vector<int> issued;
    std::size_t begun = 0;  // of those
    std::size_t open = 0;   // transfers of the step begun last that have not met their partners
  };
  struct Channel {
    std::deque<Posted> sends, receives;
  };

  void advance(Rank& rank);
  void post(Rank& rank, int step, const Exchange& exchange);
  void meet(Channel& channel);
  void transfer(const Posted& send, const Posted& receive);
  void report_deadlock();
  std::string whereabouts(int rank) const;

  Context& context_;
  std::vector<Rank> ranks_;
  std::vector<int> free_;                                  // ranks that may have something to do
  std::map<std::tuple<int, int, int>, Channel> channels_;  // (from, to, lane)
};

}  // namespace orrery::coverage
