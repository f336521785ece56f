// All ranks of a plan, run on provenance. Each rank's computation is one queue and each of its lanes another; a step
// starts when it is first in its queue and all it depends on is complete, as on a device with streams. Transfers are
// completed as late as possible: only when no rank can compute. A step that touches a slice which a transfer still uses
// is thereby caught, and when nothing can move at all, that is a deadlock.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "backend/coverage/effects.hpp"
#include "executor/hazards.hpp"
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
  struct InFlight {
    int step;
    std::size_t open;  // transfers not yet complete
  };
  struct Rank {
    std::unique_ptr<Effects> effects;
    std::unique_ptr<Dependencies> dependencies;
    std::vector<char> complete;
    std::vector<int> nodes;       // by step; of an exchange the first of its receives
    std::deque<int> computation;  // issued, not yet run
    std::map<int, std::deque<int>> lanes;
    std::vector<InFlight> in_flight;
  };
  struct Channel {
    std::deque<Posted> sends, receives;
  };

  bool ready(const Rank& rank, int step) const;
  bool compute(Rank& rank);
  bool post(Rank& rank);
  bool complete_transfers();
  void transfer(const Posted& send, const Posted& receive);
  void finish(const Posted& side);
  void check_hazards(Rank& rank, int step);
  void report_deadlock();

  Context& context_;
  std::vector<Rank> ranks_;
  std::map<std::tuple<int, int, int>, Channel> channels_;  // (from, to, lane)
};

}  // namespace orrery::coverage
