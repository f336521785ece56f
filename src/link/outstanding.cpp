#include "link/outstanding.hpp"

#include <algorithm>
#include <charconv>

#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr std::size_t kNamed = 3;  // more than this many culprits are counted, not named

std::string amount(const Outstanding& one) {
  return concat(one.bytes, " of ", one.of_bytes, " bytes outstanding to ", one.receive ? "receive" : "send",
                " on lane ", one.lane);
}

}  // namespace

void add_outstanding(std::vector<Outstanding>& list, const Outstanding& more) {
  for (Outstanding& known : list) {
    if (known.receive == more.receive && known.peer == more.peer && known.lane == more.lane) {
      known.bytes += more.bytes;
      known.of_bytes += more.of_bytes;
      return;
    }
  }
  const auto first_send = std::find_if(list.begin(), list.end(), [](const Outstanding& one) { return !one.receive; });
  list.insert(more.receive ? first_send : list.end(), more);
}

std::string describe(const std::vector<Outstanding>& list, double seconds) {
  std::string text;
  for (std::size_t i = 0; i < std::min(list.size(), kNamed); ++i) {
    const Outstanding& one = list[i];
    text += text.empty() ? "" : "; ";
    text += one.receive ? concat("nothing from rank ", one.peer) : concat("rank ", one.peer, " took nothing");
    text += concat(" for ", seconds_text(seconds), " s: ", amount(one));
  }
  if (list.size() > kNamed) text += concat("; and ", list.size() - kNamed, " more");
  return text;
}

std::string describe_left(const Outstanding& one) {
  return concat("rank ", one.peer, " has returned: ", amount(one));
}

std::string seconds_text(double seconds) {
  const bool short_time = seconds > 0 && seconds < 0.1;
  char text[400];  // the longest double, written out
  const auto end =
      std::to_chars(text, text + sizeof text, seconds,
                    short_time ? std::chars_format::general : std::chars_format::fixed, short_time ? 2 : 1);
  return {text, end.ptr};
}

std::string ranks_text(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const std::size_t named = ranks.size() <= kNamed + 1 ? ranks.size() : kNamed;
  for (std::size_t i = 0; i < named; ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  if (named < ranks.size()) text += concat(" and ", ranks.size() - named, " more");
  return text;
}

}  // namespace orrery
