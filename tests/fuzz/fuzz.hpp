// What the fuzzers share. Each has one entry point, which clang's libFuzzer calls with bytes that it makes up, and
// replay.cpp with those of a file.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "orrery/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace orrery::fuzz {

// What must hold of any input.
inline void require(bool holds) {
  if (!holds) std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Takes a number and the space behind it off the text; nothing when it does not begin so.
inline std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, fault] = std::from_chars(text.data(), end, number);
  if (fault != std::errc() || stop == end || *stop != ' ') return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()) + 1);
  return number;
}

// What `read` makes of the input, or nothing: whatever it does not like is refused, as the input's fault, in words.
template <typename Read>
auto accepted(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Error& error) {
    require(error.code() == ErrorCode::invalid && *error.what() != '\0');
    return std::nullopt;
  }
}

}  // namespace orrery::fuzz
