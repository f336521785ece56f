// Traces: when each step of a run was issued, began and ended. Any backend can be wrapped by the recorder; the timeline
// says how long a rank computed, how long it moved data, and how much of the moving was exposed.
#pragma once

#include <string>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

// Seconds from the start of the run.
struct StepTimes {
  double issued = 0, began = 0, ended = 0;
};

struct TraceStep {
  std::string name;  // "attend", ...
  std::string text;  // the step's line of text
  int lane = -1;     // -1: computation
  StepTimes times;
  std::int64_t bytes = 0;  // sent, of an exchange
};

struct Timeline {
  int rank = 0;
  Pass pass = Pass::forward;
  double seconds = 0;               // of the whole run
  double compute_seconds = 0;       // steps that compute
  double exposed_comm_seconds = 0;  // computation waited for a transfer
  std::vector<TraceStep> steps;
};

// Chrome trace JSON (chrome://tracing, Perfetto): a process a rank, a thread for computation and one for each lane.
std::string to_chrome_json(const std::vector<Timeline>& timelines);
// A picture of the same, one row for computation and one for each lane of each rank.
std::string to_svg(const std::vector<Timeline>& timelines);

// For all_gather: a timeline as bytes, and back.
std::string serialize(const Timeline& timeline);
Timeline parse_timeline(const std::string& bytes);

}  // namespace orrery
