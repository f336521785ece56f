// Which options there are, what each means, and which verb takes which.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <string_view>

#include "launch/options.hpp"

namespace orrery::launch {

inline constexpr std::string_view kVerbs = "run, check, bench, trace, info";

// Empty when there is no verb of that name.
std::optional<Verb> find_verb(std::string_view name);

// Every value is read as text here; options.cpp gives it its type, so that all refusals read alike.
boost::program_options::options_description options_of(Verb verb);

std::string general_help();
std::string help_of(Verb verb);

}  // namespace orrery::launch
