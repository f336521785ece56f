// The trace recorder: a backend around a backend. It notes when each step was issued, passes it on, and afterwards puts
// that beside when the step began and ended.
#pragma once

#include <vector>

#include "orrery/backend.hpp"
#include "orrery/problem.hpp"
#include "orrery/schedule.hpp"

namespace orrery::trace {

class Recorder final : public Backend {
 public:
  Recorder(const AttentionProblem& problem, const RankProgram& program, Backend& inner);

  void begin_run() override;
  void issue(int step) override;
  void end_run() override;
  void abandon_run() noexcept override { inner_.abandon_run(); }
  double began() const override { return inner_.began(); }
  StepTimes times(int step) const override;

  // Of the last run; with its steps, or only its sums.
  Timeline timeline(bool steps) const;

 private:
  const AttentionProblem& problem_;
  const RankProgram& program_;
  Backend& inner_;
  std::vector<double> issued_;
  double seconds_ = 0;
};

}  // namespace orrery::trace
