#include "backend/trace/tracks.hpp"

#include <map>
#include <tuple>
#include <utility>

#include "orrery/error.hpp"

namespace orrery::trace {
namespace {

enum class Kind { compute, sends, receives };

constexpr int kIds = 1 << 16;  // of tracks of different names

// Events of one kind, in the order in which they began, on as few tracks as hold them one after another.
void lay_out(std::vector<Event> events, int id, const std::string& name, std::vector<Track>& tracks) {
  std::stable_sort(events.begin(), events.end(),
                   [](const Event& a, const Event& b) { return a.at.began < b.at.began; });
  const std::size_t first = tracks.size();
  for (const Event& event : events) {
    std::size_t t = first;
    while (t < tracks.size() && tracks[t].events.back().at.ended > event.at.began) ++t;
    if (t == tracks.size()) tracks.push_back({id + static_cast<int>(t - first) * kIds, name, {}});
    tracks[t].events.push_back(event);
  }
}

}  // namespace

std::vector<RankTracks> tracks_of(const std::vector<Timeline>& timelines) {
  struct Found {
    std::map<std::pair<int, Kind>, std::vector<Event>> events;  // by lane; -1 computes
    std::vector<Interval> waited;
    double clock_error = 0;
  };
  std::map<int, Found> ranks;
  for (const Timeline& t : timelines) {
    Found& rank = ranks[t.rank];
    rank.clock_error = std::max(rank.clock_error, t.clock_error);
    Waiting waiting;
    const auto shifted = [&](const Interval& i) { return Interval{t.began + i.began, t.began + i.ended}; };
    const auto wait = [&](const Interval& i) {
      if (i.seconds() > 0) rank.waited.push_back(shifted(i));
    };
    for (std::size_t i = 0; i < t.steps.size(); ++i) {
      const TraceStep& s = t.steps[i];
      const Event event{&s, static_cast<int>(i), t.pass, shifted({s.times.began, s.times.ended}), 0};
      const auto add = [&](Kind kind, std::int64_t bytes) {
        rank.events[{s.lane, kind}].push_back(event);
        rank.events[{s.lane, kind}].back().bytes = bytes;
      };
      wait(s.lane < 0 ? waiting.computed(s.times) : waiting.moved(s.times));
      if (s.lane < 0) add(Kind::compute, 0);
      if (s.lane >= 0 && s.bytes > 0) add(Kind::sends, s.bytes);
      if (s.lane >= 0 && s.bytes_received > 0) add(Kind::receives, s.bytes_received);
    }
    wait(waiting.after_all());
  }
  std::vector<RankTracks> all;
  for (auto& [rank, found] : ranks) {
    RankTracks& tracks = all.emplace_back();
    tracks.rank = rank;
    tracks.clock_error = found.clock_error;
    tracks.waited = std::move(found.waited);
    for (auto& [key, events] : found.events) {
      const auto& [lane, kind] = key;
      const std::string name =
          kind == Kind::compute ? "compute" : concat("lane ", lane, kind == Kind::sends ? " sends" : " receives");
      const int id = kind == Kind::compute ? 0 : 2 * lane + (kind == Kind::sends ? 1 : 2);
      lay_out(std::move(events), id, name, tracks.tracks);
    }
  }
  return all;
}

}  // namespace orrery::trace
