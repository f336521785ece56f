// The picture of timelines: for each rank one row of computation and one for what each lane sends and receives, time to
// the right. Colours tell the kinds of steps; hatching in a computation row is exposed communication. The picture
// follows the reader's choice of a light or a dark page.
#include <array>
#include <cmath>
#include <limits>

#include "backend/trace/tracks.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

using trace::Event;
using trace::Interval;
using trace::RankTracks;
using trace::Track;

constexpr double kLeft = 168, kWidth = 1000, kRight = 24;
constexpr double kTop = 74, kRow = 17, kBar = 13, kGap = 12, kBottom = 14;

struct Colour {
  std::string_view name, meaning, value;
};
constexpr std::array kColours = {Colour{"forward", "attention forward", "#4a7fd0"},
                                 Colour{"backward", "attention backward", "#cf6a45"},
                                 Colour{"sum", "sums", "#4d9d6b"},
                                 Colour{"other", "other computation", "#d3a43b"},
                                 Colour{"sends", "sends", "#8a7fc4"},
                                 Colour{"receives", "receives", "#8f98a3"}};

std::string_view colour_of(const Event& event, const Track& track) {
  const TraceStep& s = *event.step;
  if (s.lane >= 0) return track.name.ends_with("sends") ? "sends" : "receives";
  if (s.name == "attend") return "forward";
  if (s.name == "attend_backward") return "backward";
  return s.name == "merge" || s.name == "add" || s.name == "compose" ? "sum" : "other";
}

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '&':
        safe += "&amp;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

// A tenth of a pixel is enough.
double pixels(double value) {
  return std::round(value * 10) / 10;
}

// "1.25 ms": a thousandth of a unit is enough.
std::string time_text(double seconds) {
  const bool ms = seconds < 1, us = seconds < 1e-3;
  return concat(std::round(seconds * (us ? 1e9 : ms ? 1e6 : 1e3)) / 1e3, us ? " us" : ms ? " ms" : " s");
}

std::string text_at(double x, double y, std::string_view more, std::string_view text) {
  return concat("<text x=\"", pixels(x), "\" y=\"", pixels(y), "\"", more, ">", text, "</text>\n");
}

std::string bar(double x, double y, double width, std::string_view fill, const std::string& title) {
  return concat("<rect class=\"", fill, "\" x=\"", pixels(x), "\" y=\"", pixels(y), "\" width=\"",
                std::max(0.4, pixels(width)), "\" height=\"", kBar, "\"><title>", escaped(title), "</title></rect>\n");
}

// Seconds between two marks of the axis: 1, 2 or 5 of a power of ten, for about ten marks.
double mark_of(double seconds) {
  const double power = std::pow(10, std::floor(std::log10(seconds / 10)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (seconds / (step * power) <= 10) return step * power;
  }
  return 10 * power;
}

std::string style() {
  std::string text =
      "<style>\n"
      "text{fill:#1f2328}.note{fill:#59636e}.page{fill:#ffffff}.line{stroke:#d8dee4}\n"
      "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.page{fill:#0d1117}"
      ".line{stroke:#30363d}}\n.exposed{fill:url(#hatch)}\n";
  for (const Colour& c : kColours) text += concat(".", c.name, "{fill:", c.value, "}\n");
  return text +
         "</style>\n<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
         "patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#e5484d\" fill-opacity=\"0.18\"/>"
         "<rect width=\"2\" height=\"6\" fill=\"#e5484d\"/></pattern></defs>\n";
}

std::string legend() {
  std::string text;
  double x = kLeft;
  const auto entry = [&](std::string_view fill, std::string_view meaning) {
    text += bar(x, 20, 16, fill, std::string(meaning)) + text_at(x + 21, 31, "", meaning);
    x += 37 + 6.1 * static_cast<double>(meaning.size());
  };
  for (const Colour& c : kColours) entry(c.name, c.meaning);
  entry("exposed", "computation waits for a transfer");
  return text;
}

class Picture {
 public:
  explicit Picture(const std::vector<RankTracks>& ranks) : ranks_(ranks) {
    double begin = std::numeric_limits<double>::infinity(), end = 0;
    for (const RankTracks& rank : ranks) {
      for (const Track& track : rank.tracks) {
        begin = std::min(begin, track.events.front().at.began);
        for (const Event& event : track.events) end = std::max(end, event.at.ended);
      }
      height_ += kRow * static_cast<double>(rank.tracks.size()) + kGap;
    }
    if (end > begin) {
      begin_ = begin;
      seconds_ = end - begin;
    }
  }

  std::string text() const {
    const double width = kLeft + kWidth + kRight;
    std::string svg =
        concat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", width, " ", height_, "\" width=\"", width,
               "\" height=\"", height_, "\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\n", style(),
               "<rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n", legend());
    svg += axis();
    double y = kTop;
    for (const RankTracks& rank : ranks_) {
      svg += rows(rank, y);
      y += kRow * static_cast<double>(rank.tracks.size()) + kGap;
    }
    return svg + "</svg>\n";
  }

 private:
  double x(double time) const { return kLeft + (seconds_ > 0 ? (time - begin_) / seconds_ * kWidth : 0); }

  std::string axis() const {
    if (seconds_ <= 0) return {};
    std::string text;
    const double mark = mark_of(seconds_);
    for (int i = 0; i * mark <= seconds_ * (1 + 1e-9); ++i) {
      const double at = pixels(x(begin_ + i * mark));
      text += concat("<line class=\"line\" x1=\"", at, "\" x2=\"", at, "\" y1=\"", kTop - 10, "\" y2=\"",
                     height_ - kBottom, "\"/>\n");
      text += text_at(at, kTop - 16, " class=\"note\" text-anchor=\"middle\"", i == 0 ? "0" : time_text(i * mark));
    }
    return text;
  }

  std::string rows(const RankTracks& rank, double y) const {
    std::string text = text_at(14, y + 11, " font-weight=\"600\"", concat("rank ", rank.rank));
    for (const Interval& wait : rank.waited) {
      text += bar(x(wait.began), y, x(wait.ended) - x(wait.began), "exposed",
                  concat("rank ", rank.rank, ": ", time_text(wait.seconds()), " of waiting for a transfer"));
    }
    std::string_view last;
    for (const Track& track : rank.tracks) {
      if (track.name != last) {
        text += text_at(kLeft - 10, y + 11, " class=\"note\" text-anchor=\"end\"", track.name);
      }
      last = track.name;
      for (const Event& event : track.events) {
        text += bar(x(event.at.began), y, x(event.at.ended) - x(event.at.began), colour_of(event, track),
                    concat("rank ", rank.rank, " ", to_string(event.pass), " ", event.index, ": ", event.step->text,
                           " (", time_text(event.at.seconds()), ")"));
      }
      y += kRow;
    }
    return text;
  }

  const std::vector<RankTracks>& ranks_;
  double begin_ = 0, seconds_ = 0, height_ = kTop + kBottom;
};

}  // namespace

std::string to_svg(const std::vector<Timeline>& timelines) {
  return Picture(trace::tracks_of(timelines)).text();
}

}  // namespace orrery
