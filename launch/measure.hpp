// Times of passes. Ranks start each repetition together, and the time of a repetition is that of its slowest rank.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/workload.hpp"

namespace orrery::launch {

struct PassTimes {
  std::vector<double> seconds;  // by repetition

  double median() const;
  double p99() const;  // nearest rank
};

struct Measured {
  PassTimes forward, backward;      // backward is empty without it
  double exposed_comm_seconds = 0;  // of all passes of a repetition; of the slowest rank, median over repetitions
  std::int64_t peak_bytes = 0;      // peak resident set of a process, or device_bytes() on CUDA; the largest
  double flops_per_second = 0;      // over all ranks and passes, from the medians
};

// What a plan costs, gathered from all ranks.
struct PlanCosts {
  std::vector<std::int64_t> bytes_sent;  // by rank, over all passes
  std::int64_t steps = 0;                // of the rank that has most
  std::int64_t workspace_bytes = 0;      // likewise
  std::int64_t tensor_bytes = 0;         // likewise
};

double median(std::vector<double> values);  // 0 when there are none

// Collective. `show_progress`: rank 0 keeps a line on standard error, when that is a terminal.
Measured measure(Workload& workload, int repeat, int warmup, bool show_progress);

// Collective.
PlanCosts gather_costs(Workload& workload);

// The slower of all ranks, for each value. Collective.
std::vector<double> slowest(World& world, const std::vector<double>& mine);

// The peak resident set of this process, in bytes.
std::int64_t peak_resident_bytes();

}  // namespace orrery::launch
