#include "orrery/error.hpp"
#include "orrery/verify.hpp"

namespace orrery {

VerifyMode parse_verify_mode(std::string_view text) {
  for (VerifyMode mode : {VerifyMode::none, VerifyMode::sample, VerifyMode::full}) {
    if (text == to_string(mode)) return mode;
  }
  refuse("'", text, "' is no way to verify; there are: none, sample, full");
}

std::string_view to_string(VerifyMode mode) {
  return mode == VerifyMode::none ? "none" : mode == VerifyMode::sample ? "sample" : "full";
}

}  // namespace orrery
