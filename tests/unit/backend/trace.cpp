#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "backend/trace/tracks.hpp"
#include "orrery/trace.hpp"
#include "support/catch.hpp"

using namespace orrery;

namespace {

TraceStep computes(const char* name, double issued, double began, double ended) {
  return {name, name, -1, {issued, began, ended}};
}
TraceStep exchanges(int lane, double began, double ended, std::int64_t sent, std::int64_t received) {
  return {"exchange", "exchange", lane, {began, began, ended}, sent, received};
}

// Two passes of a rank. The second exchange of lane 0 begins before the first is complete, and the backward pass begins
// where the forward ends.
std::vector<Timeline> two_passes(int rank, double began) {
  const std::vector<TraceStep> forward = {exchanges(0, 0, 0.003, 100, 50), exchanges(0, 0.001, 0.004, 100, 0),
                                          computes("attend", 0, 0.001, 0.002),
                                          computes("attend", 0.001, 0.0035, 0.004)};
  const std::vector<TraceStep> backward = {exchanges(1, 0.0001, 0.0009, 0, 70),
                                           computes("attend_backward", 0, 0, 0.0007)};
  Timeline first{rank, Pass::forward, 0.004, 0.0015, 0.0025, forward, began};
  Timeline second{rank, Pass::backward, 0.001, 0.0007, 0.0002, backward, began + 0.004};
  return {first, second};
}

}  // namespace

TEST_CASE("a rank has a track for its computation, and for what each lane sends and receives") {
  const auto timelines = two_passes(3, 10);
  const auto ranks = trace::tracks_of(timelines);
  REQUIRE(ranks.size() == 1);
  REQUIRE(ranks[0].rank == 3);
  std::vector<std::string> names;
  for (const trace::Track& track : ranks[0].tracks) {
    names.push_back(track.name);
    for (std::size_t i = 1; i < track.events.size(); ++i) {
      CHECK(track.events[i - 1].at.ended <= track.events[i].at.began);
    }
  }
  // What lane 0 sends twice at a time lies on two tracks.
  CHECK(names ==
        std::vector<std::string>{"compute", "lane 0 sends", "lane 0 sends", "lane 0 receives", "lane 1 receives"});
  CHECK(ranks[0].tracks[0].events.size() == 3);  // of both passes
  CHECK(ranks[0].tracks[0].events.back().pass == Pass::backward);
  CHECK(ranks[0].tracks[3].events[0].bytes == 50);
}

TEST_CASE("the waits that a picture marks are those that a timeline sums up") {
  const auto timelines = two_passes(0, 10);
  const auto ranks = trace::tracks_of(timelines);
  double waited = 0;
  for (const trace::Interval& wait : ranks[0].waited) waited += wait.seconds();
  CHECK(waited == Approx(timelines[0].exposed_comm_seconds + timelines[1].exposed_comm_seconds));
}

TEST_CASE("exposed is what computation waits for, and what starting a transfer keeps its thread from") {
  // Over threads: the first start makes no copy, the second one copies for 2 ms, the third for 1 ms at the end.
  Timeline timeline;
  timeline.steps = {exchanges(0, 0, 0.009, 8, 8), computes("clear", 0, 0, 0.003), exchanges(0, 0.003, 0.005, 8, 8),
                    computes("clear", 0.005, 0.006, 0.007), exchanges(0, 0.007, 0.008, 8, 8)};
  timeline.steps[2].times.held = 0.002;
  timeline.steps[4].times.held = 0.001;
  const auto ranks = trace::tracks_of({timeline});
  std::vector<std::pair<double, double>> waited;
  for (const trace::Interval& wait : ranks[0].waited) waited.emplace_back(wait.began, wait.ended);
  // The second start, the wait for it, the third start, and the first exchange, which ends last.
  const std::vector<std::pair<double, double>> expected = {
      {0.003, 0.005}, {0.005, 0.006}, {0.007, 0.008}, {0.008, 0.009}};
  REQUIRE(waited.size() == expected.size());
  for (std::size_t i = 0; i < waited.size(); ++i) {
    CHECK(waited[i].first == Approx(expected[i].first));
    CHECK(waited[i].second == Approx(expected[i].second));
  }
  CHECK(parse_timeline(serialize(timeline)).steps[2].times.held == 0.002);
}

TEST_CASE("events of a track of the Chrome trace follow one another to the last bit") {
  // After a long time since the host started, when rounding is coarse.
  for (const double began : {0.0, 3e7}) {
    std::vector<Timeline> timelines = two_passes(0, began);
    for (const Timeline& t : two_passes(1, began + 0.0013)) timelines.push_back(t);
    double at = 0;  // steps that touch, ever longer
    for (int i = 0; i < 14; ++i) {
      const double next = 5.3 * at + 1e-6 / 3;
      timelines[0].steps.push_back(computes("copy", 0.004, 0.004 + at, 0.004 + next));
      at = next;
    }
    timelines[1].began += at;
    const auto json = nlohmann::json::parse(to_chrome_json(timelines));
    std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> tracks;
    std::vector<std::string> processes;
    for (const auto& event : json.at("traceEvents")) {
      if (event.at("ph") == "X") {
        tracks[{event.at("pid"), event.at("tid")}].emplace_back(event.at("ts"), event.at("dur"));
      } else if (event.at("name") == "process_name") {
        processes.push_back(event.at("args").at("name"));
      }
    }
    CHECK(processes == std::vector<std::string>{"rank 0", "rank 1"});
    CHECK(tracks.size() == 10);
    std::size_t overlaps = 0;
    for (auto& [id, events] : tracks) {
      std::sort(events.begin(), events.end());
      for (std::size_t i = 1; i < events.size(); ++i) {
        overlaps += events[i - 1].first + events[i - 1].second > events[i].first ? 1 : 0;
      }
    }
    CHECK(overlaps == 0);
  }
}

TEST_CASE("a timeline survives its way through bytes, and an uncertain clock is told") {
  std::vector<Timeline> timelines = two_passes(2, 5);
  timelines[0].clock_error = 12e-6;
  const Timeline back = parse_timeline(serialize(timelines[0]));
  CHECK(back.began == timelines[0].began);
  CHECK(back.clock_error == timelines[0].clock_error);
  CHECK(back.steps[0].bytes_received == 50);
  CHECK(to_chrome_json({back}).find("rank 2, clock to within 12 us") != std::string::npos);
}

TEST_CASE("the picture names its tracks and marks exposed communication, on light pages and dark ones") {
  const std::string svg = to_svg(two_passes(1, 7));
  for (const char* text : {">rank 1<", ">compute<", ">lane 0 sends<", ">lane 1 receives<", "prefers-color-scheme:dark",
                           "class=\"exposed\"", "of waiting for a transfer", ">attention backward<", ">1 ms<"}) {
    INFO(text);
    CHECK(svg.find(text) != std::string::npos);
  }
}
