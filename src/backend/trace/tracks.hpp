// What a timeline looks like, before it is written down: for each rank its tracks, on one clock. A track is what its
// rank computes, or what one lane sends or receives, over all passes. Exchanges of a lane may be under way together; an
// event that overlaps the last one of its track goes to another track of the same name, so that those of one track
// follow each other.
#pragma once

#include <string>
#include <vector>

#include "backend/trace/waiting.hpp"
#include "orrery/trace.hpp"

namespace orrery::trace {

struct Event {
  const TraceStep* step = nullptr;
  int index = 0;  // of the step in its program
  Pass pass = Pass::forward;
  Interval at;  // on the clock of the timelines
  std::int64_t bytes = 0;
};

struct Track {
  int id = 0;        // the same in every picture of a rank: tracks of several may be joined
  std::string name;  // "compute", "lane 0 sends", "lane 0 receives"
  std::vector<Event> events;
};

struct RankTracks {
  int rank = 0;
  double clock_error = 0;
  std::vector<Track> tracks;     // computation, then lane by lane
  std::vector<Interval> waited;  // computation, for a transfer
};

// By rank. The timelines outlive the answer.
std::vector<RankTracks> tracks_of(const std::vector<Timeline>& timelines);

}  // namespace orrery::trace
