// Numbers and lines as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "orrery/error.hpp"

namespace orrery::launch {

std::string bytes_text(double bytes);             // "12.3 MiB"
std::string seconds_text(double seconds);         // "1.23 s", "45.6 ms", "7.8 us"
std::string flops_text(double flops_per_second);  // "1.23 TFLOP/s", "45.6 GFLOP/s"
std::string fixed(double value, int digits);
std::string scientific(double value);
std::string counted(std::int64_t count, std::string_view noun);  // "1 rank", "2 ranks"

// An error as one line: control characters, which hostile file names may hold, become spaces; a bug is called one.
std::string printable(const Error& error);
// That line to standard error, in one write so that ranks' lines do not mix.
void print_error(const Error& error) noexcept;
// A line to standard error of what is no error, yet to be known.
void print_note(std::string_view note);
// Prints to standard output and sees that it arrived; ErrorCode::resource when it did not.
void print(std::string_view text);

}  // namespace orrery::launch
