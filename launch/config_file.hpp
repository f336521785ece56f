// The file of --config: a line NAME = VALUE for each option. A line whose first character is # or ; is a comment;
// within a value these stand for themselves, for file names hold them. White space around a value is dropped, and
// double quotes around it, which keep white space that belongs to it.
#pragma once

#include <string>
#include <vector>

namespace orrery::launch {

struct ConfigLine {
  std::string name, value;
  std::string place;  // "FILE:LINE"
};

// Throws ErrorCode::invalid, naming file and line: what is no NAME = VALUE, a name twice, a quote without its end.
std::vector<ConfigLine> read_config_file(const std::string& path);

}  // namespace orrery::launch
