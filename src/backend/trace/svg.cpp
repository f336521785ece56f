// The picture of a timeline: for each rank one row of computation and one for each lane, time to the right. Computation
// is coloured by kind of step, transfers are grey, so that white in a computation row above grey is exposed
// communication.
#include <algorithm>
#include <map>

#include "orrery/error.hpp"
#include "orrery/trace.hpp"

namespace orrery {
namespace {

constexpr double kWidth = 1200, kLeft = 150, kRow = 18, kGap = 10, kTop = 46;

std::string colour(const TraceStep& step) {
  static const std::map<std::string, std::string> kColours = {{"attend", "#3b76af"},   {"attend_backward", "#b5543c"},
                                                              {"exchange", "#9a9a9a"}, {"merge", "#5b9a52"},
                                                              {"add", "#5b9a52"},      {"compose", "#5b9a52"}};
  const auto found = kColours.find(step.name);
  return found == kColours.end() ? "#d9a441" : found->second;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (char c : text) {
    if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '&')
      safe += "&amp;";
    else if (c == '"')
      safe += "&quot;";
    else
      safe += c;
  }
  return safe;
}

}  // namespace

std::string to_svg(const std::vector<Timeline>& timelines) {
  double seconds = 0, height = kTop;
  std::vector<int> lanes;
  for (const Timeline& t : timelines) {
    int count = 0;
    for (const TraceStep& s : t.steps) {
      count = std::max(count, s.lane + 1);
      seconds = std::max(seconds, s.times.ended);
    }
    lanes.push_back(count);
    height += kRow * (count + 1) + kGap;
  }
  const double scale = seconds > 0 ? kWidth / seconds : 0;
  TextStream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << kLeft + kWidth + 20 << "\" height=\"" << height + 10
      << "\" font-family=\"sans-serif\" font-size=\"11\">\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      << "<text x=\"" << kLeft << "\" y=\"16\">0</text><text x=\"" << kLeft + kWidth
      << "\" y=\"16\" text-anchor=\"end\">" << seconds * 1e3 << " ms</text>\n<text x=\"" << kLeft
      << "\" y=\"34\"><tspan fill=\"#3b76af\">attend</tspan> <tspan fill=\"#b5543c\">attend backward</tspan> "
         "<tspan fill=\"#d9a441\">other computation</tspan> <tspan fill=\"#5b9a52\">sums</tspan> "
         "<tspan fill=\"#9a9a9a\">transfers</tspan></text>\n";
  double y = kTop;
  for (std::size_t i = 0; i < timelines.size(); ++i) {
    const Timeline& t = timelines[i];
    for (int row = -1; row < lanes[i]; ++row) {
      const double top = y + kRow * (row + 1);
      svg << "<text x=\"4\" y=\"" << top + 12 << "\">" << (row < 0 ? "rank " + std::to_string(t.rank) + " " : "  lane ")
          << (row < 0 ? std::string(to_string(t.pass)) : std::to_string(row)) << "</text>\n";
    }
    for (const TraceStep& s : t.steps) {
      svg << "<rect x=\"" << kLeft + s.times.began * scale << "\" y=\"" << y + kRow * (s.lane + 1) + 2 << "\" width=\""
          << std::max(0.4, (s.times.ended - s.times.began) * scale) << "\" height=\"" << kRow - 4 << "\" fill=\""
          << colour(s) << "\"><title>" << escaped(s.text) << "</title></rect>\n";
    }
    y += kRow * (lanes[i] + 1) + kGap;
  }
  svg << "</svg>\n";
  return svg.str();
}

}  // namespace orrery
