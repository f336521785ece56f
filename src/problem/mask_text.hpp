// What the readers of mask text share: numbers, and how a message quotes what it refuses.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include "orrery/error.hpp"

namespace orrery::mask_text {

// In double quotes, shortened, with unprintable bytes replaced.
inline std::string quoted(std::string_view text, std::size_t shown = 80) {
  std::string result = "\"";
  for (char c : text.substr(0, shown)) result += c >= ' ' && c <= '~' ? c : '?';
  return result + (text.size() > shown ? "...\"" : "\"");
}

// A number of tokens: decimal digits and nothing else. where() says for the message in what it stands.
template <typename Where>
std::int64_t parse_tokens(std::string_view digits, const Where& where) {
  std::int64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error == std::errc::result_out_of_range && digits.front() != '-') {
    refuse("mask: ", quoted(digits), " in ", where(), " is too large: at most 9223372036854775807 is allowed");
  }
  if (error != std::errc{} || stop != end || digits.front() == '-') {
    refuse("mask: ", quoted(digits), " in ", where(), " is not a whole number of tokens (0, 1, 2, ...)");
  }
  return value;
}

}  // namespace orrery::mask_text
