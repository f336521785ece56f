#include <nlohmann/json.hpp>

#include "orrery/error.hpp"
#include "orrery/trace.hpp"

namespace orrery {

std::string serialize(const Timeline& timeline) {
  nlohmann::json steps = nlohmann::json::array();
  for (const TraceStep& s : timeline.steps) {
    steps.push_back({s.name, s.text, s.lane, s.times.issued, s.times.began, s.times.ended, s.times.held, s.bytes,
                     s.bytes_received});
  }
  return nlohmann::json{{"rank", timeline.rank},
                        {"backward", timeline.pass == Pass::backward},
                        {"seconds", timeline.seconds},
                        {"compute", timeline.compute_seconds},
                        {"exposed", timeline.exposed_comm_seconds},
                        {"began", timeline.began},
                        {"clock_error", timeline.clock_error},
                        {"steps", steps}}
      .dump();
}

Timeline parse_timeline(const std::string& bytes) {
  const auto json = nlohmann::json::parse(bytes, nullptr, false);
  if (json.is_discarded()) fail(ErrorCode::bug, "a timeline of ", bytes.size(), " bytes that is no timeline");
  Timeline timeline;
  timeline.rank = json.at("rank");
  timeline.pass = json.at("backward") ? Pass::backward : Pass::forward;
  timeline.seconds = json.at("seconds");
  timeline.compute_seconds = json.at("compute");
  timeline.exposed_comm_seconds = json.at("exposed");
  timeline.began = json.at("began");
  timeline.clock_error = json.at("clock_error");
  for (const auto& s : json.at("steps")) {
    timeline.steps.push_back({s[0], s[1], s[2], {s[3], s[4], s[5], s[6]}, s[7], s[8]});
  }
  return timeline;
}

}  // namespace orrery
