#include "launch/config_file.hpp"

#include <map>
#include <string_view>

#include "orrery/error.hpp"
#include "orrery/file.hpp"

namespace orrery::launch {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;
constexpr std::string_view kSpace = " \t\r";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

ConfigLine parse_line(std::string_view line, const std::string& place) {
  if (line.front() == '[') refuse(place, ": '", line, "' begins a section; a file of options has none");
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) refuse(place, ": '", line, "' is not NAME = VALUE");
  const std::string_view name = trimmed(line.substr(0, equals));
  std::string_view value = trimmed(line.substr(equals + 1));
  if (name.empty()) refuse(place, ": '", line, "' has no name before the =");
  if (name.starts_with("-")) refuse(place, ": '", name, "': names stand here without dashes");
  if (value.starts_with('"')) {
    if (value.size() < 2 || !value.ends_with('"')) refuse(place, ": ", name, " has a quote without its end: ", value);
    value = value.substr(1, value.size() - 2);
  }
  if (value.empty()) refuse(place, ": ", name, " has no value");
  return {std::string(name), std::string(value), place};
}

}  // namespace

std::vector<ConfigLine> read_config_file(const std::string& path) {
  std::string text;
  try {
    text = read_text_file(path, kMostBytes);
  } catch (const Error& error) {
    refuse("--config: ", path, " ", error.what());
  }
  std::vector<ConfigLine> lines;
  std::map<std::string, int> line_of;
  std::string_view rest = text;
  if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);  // a byte order mark
  for (int number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = trimmed(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    const std::string place = concat(path, ":", number);
    lines.push_back(parse_line(line, place));
    const auto [first, is_new] = line_of.emplace(lines.back().name, number);
    if (!is_new) refuse(place, ": ", lines.back().name, " was given in line ", first->second, " already");
  }
  return lines;
}

}  // namespace orrery::launch
