// How contexts are opened, over whatever carries them.
#pragma once

#include <memory>

#include "c_api/handles.hpp"

namespace orrery::c_api {

inline WorldOptions options_of(const orrery_context_options* options) {
  const orrery_context_options defaults = ORRERY_CONTEXT_OPTIONS_INIT;
  const orrery_context_options given = read(options, defaults, "options");
  WorldOptions known{.timeout_seconds = given.timeout_seconds, .device_link = text_or(given.device_link, "auto")};
  if (given.interrupted != nullptr) {
    known.interrupted = [ask = given.interrupted, data = given.interrupted_data] { return ask(data) != 0; };
  }
  return known;
}

template <typename Open>
orrery_status open_context(orrery_context** context, const ToBuffer& tell, const Open& open) {
  return guarded(tell, [&] {
    require(context, "context");
    *context = nullptr;
    *context = new orrery_context{std::make_shared<Rank>(open())};
  });
}

inline ErrorCode code_of(orrery_status status) {
  return status >= ORRERY_BUG && status <= ORRERY_INTERRUPTED ? static_cast<ErrorCode>(status) : ErrorCode::bug;
}

}  // namespace orrery::c_api
