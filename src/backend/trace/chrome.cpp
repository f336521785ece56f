#include <cmath>
#include <nlohmann/json.hpp>

#include "backend/trace/tracks.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

// Times are told in microseconds, as multiples of 1/64: these and their sums are exact, so that one event begins just
// where another ends, however long a host has been up.
double microseconds(double seconds) {
  return std::round(seconds * 64e6) / 64;
}

}  // namespace

std::string to_chrome_json(const std::vector<Timeline>& timelines) {
  nlohmann::json events = nlohmann::json::array();
  for (const trace::RankTracks& rank : trace::tracks_of(timelines)) {
    const auto tell = [&](const char* what, int thread, const nlohmann::json& args) {
      events.push_back({{"ph", "M"}, {"name", what}, {"pid", rank.rank}, {"tid", thread}, {"args", args}});
    };
    std::string process = concat("rank ", rank.rank);
    if (rank.clock_error > 0) process += concat(", clock to within ", rank.clock_error * 1e6, " us");
    tell("process_name", 0, {{"name", process}});
    int place = 0;
    for (const trace::Track& track : rank.tracks) {
      tell("thread_name", track.id, {{"name", track.name}});
      tell("thread_sort_index", track.id, {{"sort_index", place++}});
      for (const trace::Event& event : track.events) {
        const TraceStep& s = *event.step;
        const double began = microseconds(event.at.began);
        const double issued = microseconds(event.at.began - s.times.began + s.times.issued);
        events.push_back({{"ph", "X"},
                          {"name", concat(event.index, " ", s.name)},
                          {"cat", to_string(event.pass)},
                          {"pid", rank.rank},
                          {"tid", track.id},
                          {"ts", began},
                          {"dur", microseconds(event.at.ended) - began},
                          {"args", {{"step", s.text}, {"issued_us", issued}, {"bytes", event.bytes}}}});
      }
    }
  }
  return nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace orrery
