#include "launch/text.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <new>

namespace orrery::launch {
namespace {

std::string formatted(std::chars_format format, int digits, double value) {
  std::array<char, 400> text{};  // the longest double, written out
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value, format, digits).ptr};
}

// Three significant digits before a unit.
std::string scaled(double value, std::string_view unit) {
  const int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fixed(value, digits) + " " + std::string(unit);
}

}  // namespace

std::string fixed(double value, int digits) {
  return formatted(std::chars_format::fixed, digits, value);
}

std::string scientific(double value) {
  return formatted(std::chars_format::scientific, 1, value);
}

std::string bytes_text(double bytes) {
  static constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fixed(bytes, 0) + " B";
  std::size_t unit = 0;
  for (bytes /= 1024; bytes >= 1023.5 && unit + 1 < kUnits.size(); bytes /= 1024) ++unit;
  return scaled(bytes, kUnits[unit]);
}

std::string seconds_text(double seconds) {
  if (seconds < 0.9995e-3) return scaled(seconds * 1e6, "us");
  if (seconds < 0.9995) return scaled(seconds * 1e3, "ms");
  return scaled(seconds, "s");
}

std::string flops_text(double flops_per_second) {
  if (flops_per_second < 0.9995e9) return scaled(flops_per_second / 1e6, "MFLOP/s");
  if (flops_per_second < 0.9995e12) return scaled(flops_per_second / 1e9, "GFLOP/s");
  return scaled(flops_per_second / 1e12, "TFLOP/s");
}

std::string counted(std::int64_t count, std::string_view noun) {
  return concat(count, " ", noun, count == 1 ? "" : "s");
}

std::string printable(const Error& error) {
  std::string line = (error.code() == ErrorCode::bug ? "bug: " : "") + std::string(error.what());
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return line;
}

void print_error(const Error& error) noexcept {
  try {
    const std::string line = "orrery: " + printable(error) + "\n";
    // When standard error is gone there is nobody left to tell.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  } catch (const std::bad_alloc&) {
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, "orrery: out of memory\n", 22);
  }
}

void print_note(std::string_view note) {
  const std::string line = "orrery: note: " + printable(Error(ErrorCode::invalid, std::string(note))) + "\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail(ErrorCode::resource, "cannot write to standard output");
  }
}

}  // namespace orrery::launch
