#include "orrery/env.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "orrery/error.hpp"

namespace orrery {
namespace {

template <typename Number>
void read_number(const char* name, Number low, Number high, const char* range, Number& into) {
  const char* text = std::getenv(name);
  if (text == nullptr) return;
  Number value{};
  const char* end = text + std::strlen(text);
  const auto [stop, fault] = std::from_chars(text, end, value);
  const bool inside = value >= low && value <= high;  // false for NaN
  if (fault != std::errc() || stop != end || !inside) refuse(name, "='", text, "' is not ", range);
  into = value;
}

}  // namespace

Env Env::read() {
  Env env;
  constexpr double kLeastSeconds = 1e-9, kMostSeconds = 1e9;
  int check = 0;
  read_number("ORRERY_TIMEOUT_SECONDS", kLeastSeconds, kMostSeconds, "a number of seconds above 0",
              env.timeout_seconds);
  read_number("ORRERY_THREADS", 1, 1024, "a whole number from 1 to 1024", env.threads);
  read_number("ORRERY_SM_MARGIN", 0, std::numeric_limits<int>::max(), "a whole number from 0 on", env.sm_margin);
  read_number("ORRERY_CHECK", 0, 1, "0 or 1", check);
  env.check = check == 1;
  if (const char* kernels = std::getenv("ORRERY_KERNELS")) {
    env.portable_kernels = std::strcmp(kernels, "portable") == 0;
    if (!env.portable_kernels && std::strcmp(kernels, "best") != 0) {
      refuse("ORRERY_KERNELS='", kernels, "' is neither best nor portable");
    }
  }
  return env;
}

}  // namespace orrery
