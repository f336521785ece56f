// The name of this host: ranks that have the same one share a node.
#pragma once

#include <string>

namespace orrery {

std::string host_name();

}  // namespace orrery
