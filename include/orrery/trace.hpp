// Traces: when each step of a run was issued, began and ended. Any backend can be wrapped by the recorder; the timeline
// says how long a rank computed, how long it moved data, and how much of the moving was exposed.
#pragma once

#include <string>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery {

// Seconds from the beginning of the run.
struct StepTimes {
  double issued = 0, began = 0, ended = 0;
  // Of an exchange: for how long starting it kept the thread that computes, which copies itself where ranks are
  // threads.
  double held = 0;
};

struct TraceStep {
  std::string name;  // "attend", ...
  std::string text;  // the step's line of text
  int lane = -1;     // -1: computation
  StepTimes times;
  std::int64_t bytes = 0;  // sent, of an exchange
  std::int64_t bytes_received = 0;
};

struct Timeline {
  int rank = 0;
  Pass pass = Pass::forward;
  double seconds = 0;               // of the whole run
  double compute_seconds = 0;       // steps that compute
  double exposed_comm_seconds = 0;  // computation waited for a transfer, or for its start
  std::vector<TraceStep> steps;
  // When the run began: seconds on a clock that all timelines of one picture share. A rank gives those of its host's
  // steady clock, which all processes of a host share.
  double began = 0;
  double clock_error = 0;  // seconds: how far off `began` may be on that clock, where hosts have clocks of their own
};

// Chrome trace JSON (chrome://tracing, Perfetto): a process a rank; tracks for its computation, and for what each lane
// sends and receives. Events of one track follow each other, so that viewers keep all of them.
std::string to_chrome_json(const std::vector<Timeline>& timelines);
// A picture of the same tracks, with the time marked in which computation waited for a transfer.
std::string to_svg(const std::vector<Timeline>& timelines);

// For all_gather: a timeline as bytes, and back.
std::string serialize(const Timeline& timeline);
Timeline parse_timeline(const std::string& bytes);

}  // namespace orrery
