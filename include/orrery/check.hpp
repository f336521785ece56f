// The checker: runs a plan's programs, all ranks, on a backend whose values are provenance instead of numbers, and says
// what is wrong. An empty answer is a proof that every admitted (query head, query, key) is visited exactly once, every
// gradient comes home, nothing deadlocks, nothing is read before it is written or overwritten while in use, and every
// step is needed. It proves coverage, not arithmetic.
#pragma once

#include <string>
#include <vector>

#include "orrery/plan.hpp"

namespace orrery {

enum class Fault {
  deadlock,   // in program order ranks wait for each other, or a transfer has no partner
  mismatch,   // two sides of a transfer disagree on its shape
  hazard,     // a slice is touched while a transfer that nobody waited for may still use it
  unwritten,  // a slice is read that nothing has written
  wrong,      // a row is not what the step claims it is
  missing,    // an admitted pair is never visited, or a gradient never comes home
  repeated,   // an admitted pair is visited more than once
  needless,   // a step, or a transfer, on which no result depends
};
std::string_view to_string(Fault fault);

struct Finding {
  Fault fault;
  Pass pass;
  int rank = -1;
  int step = -1;  // -1: no one step
  std::string message;
  bool fused = false;  // of the fused program, whose steps are numbered anew
};
std::string to_text(const Finding& finding);

struct CheckOptions {
  bool needless = true;      // report steps that no result needs
  std::size_t at_most = 20;  // findings
  // Of a plan: the programs as they are planned, which CPUs run, and fused, as CUDA devices run them.
  bool planned = true, fused = true;
};

// Proves a plan: forward, and with options.backward the backward run after it. What every kind of device runs is
// proved.
std::vector<Finding> check(const Plan& plan, const CheckOptions& options = {});

// Proves hand-written programs: one a rank, inputs and outputs recognised by kind and role. `backward` may be empty.
std::vector<Finding> check(const AttentionProblem& problem, const Layout& layout,
                           const std::vector<RankProgram>& forward, const std::vector<RankProgram>& backward,
                           const CheckOptions& options = {});

}  // namespace orrery
