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

// Whether the variable holds the first of two words; `otherwise` when it is not set.
bool read_choice(const char* name, const char* yes, const char* no, bool otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  if (std::strcmp(text, yes) == 0) return true;
  if (std::strcmp(text, no) == 0) return false;
  refuse(name, "='", text, "' is neither ", yes, " nor ", no);
}

}  // namespace

Env Env::read() {
  Env env;
  constexpr double kLeastSeconds = 1e-9, kMostSeconds = 1e9;
  read_number("ORRERY_TIMEOUT_SECONDS", kLeastSeconds, kMostSeconds, "a number of seconds above 0",
              env.timeout_seconds);
  read_number("ORRERY_THREADS", 1, 1024, "a whole number from 1 to 1024", env.threads);
  read_number("ORRERY_SM_MARGIN", 0, std::numeric_limits<int>::max(), "a whole number from 0 on", env.sm_margin);
  env.check = read_choice("ORRERY_CHECK", "1", "0", env.check);
  env.portable_kernels = read_choice("ORRERY_KERNELS", "portable", "best", env.portable_kernels);
  env.launcher = read_choice("ORRERY_LAUNCHER", "auto", "none", env.launcher);
  if (std::getenv("ORRERY_AGREE") != nullptr) env.agree_always = read_choice("ORRERY_AGREE", "always", "first", false);
  return env;
}

}  // namespace orrery
