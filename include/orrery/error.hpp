// Errors: what went wrong, where, with the values, and whose fault it was. The code is also the exit code of the
// program, so a script can tell a refused problem from a dead peer (docs/errors.md).
#pragma once

#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace orrery {

enum class ErrorCode : int {
  bug = 1,           // a fault of Orrery itself
  invalid = 2,       // bad usage, bad input, or a problem that is refused
  verification = 3,  // results differ from the float64 reference
  peer = 4,          // another rank failed, or a deadline passed
  resource = 5,      // memory, files, devices
  interrupted = 6,   // the caller's hook ended a wait (WorldOptions::interrupted)
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// The stream for all text that Orrery makes: it writes as the C locale does, whatever locale a host program has chosen.
class TextStream : public std::ostringstream {
 public:
  TextStream() { imbue(std::locale::classic()); }
};

// The exception in flight, as an error of Orrery: what is none becomes ErrorCode::resource, where memory or threads ran
// out, or ErrorCode::bug. Only inside a catch.
Error current_error();

// Joins values into one message: concat("rank ", 3, " of ", 8).
template <typename... Parts>
std::string concat(const Parts&... parts) {
  TextStream text;
  (text << ... << parts);
  return text.str();
}

template <typename... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, concat(parts...));
}

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw Error(ErrorCode::invalid, concat(parts...));
}

}  // namespace orrery

// An invariant of Orrery's own code. Only a macro can quote the condition.
#define ORRERY_CHECK(condition, ...)                                                                          \
  do {                                                                                                        \
    if (!(condition)) {                                                                                       \
      ::orrery::fail(::orrery::ErrorCode::bug, __FILE__, ":", __LINE__, ": ", #condition, ": ", __VA_ARGS__); \
    }                                                                                                         \
  } while (false)
