// The small files the program writes: reports and timelines.
#pragma once

#include <string>
#include <string_view>

namespace orrery::launch {

// Refuses an output path that could not be written later: no such directory, no permission, or a directory itself.
// An empty path, or "-", is none.
void check_writable(const std::string& path);

// Writes beside `path`, then renames: the file is there whole or not at all. "-" is standard output.
void write_file(const std::string& path, std::string_view text);

}  // namespace orrery::launch
