#include <nlohmann/json.hpp>

#include "orrery/error.hpp"
#include "orrery/trace.hpp"

namespace orrery {

std::string to_chrome_json(const std::vector<Timeline>& timelines) {
  constexpr double kMicroseconds = 1e6;
  nlohmann::json events = nlohmann::json::array();
  for (const Timeline& t : timelines) {
    // A process is a rank's pass; thread 0 computes, thread n is lane n - 1.
    const int process = 2 * t.rank + (t.pass == Pass::backward ? 1 : 0);
    const auto name = [&](const char* what, int thread, const std::string& text) {
      events.push_back({{"ph", "M"}, {"name", what}, {"pid", process}, {"tid", thread}, {"args", {{"name", text}}}});
    };
    name("process_name", 0, concat("rank ", t.rank, " ", to_string(t.pass)));
    name("thread_name", 0, "compute");
    int lanes = 0;
    for (const TraceStep& s : t.steps) lanes = std::max(lanes, s.lane + 1);
    for (int lane = 0; lane < lanes; ++lane) name("thread_name", lane + 1, concat("lane ", lane));
    for (std::size_t i = 0; i < t.steps.size(); ++i) {
      const TraceStep& s = t.steps[i];
      events.push_back(
          {{"ph", "X"},
           {"name", concat(i, " ", s.name)},
           {"pid", process},
           {"tid", s.lane + 1},
           {"ts", s.times.began * kMicroseconds},
           {"dur", (s.times.ended - s.times.began) * kMicroseconds},
           {"args", {{"step", s.text}, {"issued_us", s.times.issued * kMicroseconds}, {"bytes", s.bytes}}}});
    }
  }
  return nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace orrery
