// Files that the command line names: finding a name in the text around it, and reading a small file whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

// Text may begin with the name of a file and go on after a separator, which the name may hold too: FILE:TENSOR, or
// @FILE+TERM in a mask. The longest beginning that is followed by `separator` or by the end, and names something other
// than a folder, wins. Empty when there is none.
std::string_view longest_file(std::string_view text, char separator);

// The bytes of a file, a pipe included. Throws ErrorCode::invalid when it cannot be read, holds more than `most_bytes`,
// or sends nothing for ten seconds; the message follows the file's name, which the caller quotes.
std::string read_text_file(const std::string& path, std::size_t most_bytes);

}  // namespace orrery
