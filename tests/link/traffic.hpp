// The vocabulary of the suite, for the tests of links.
#pragma once

#include "link/conformance/traffic.hpp"

namespace orrery::test {

using namespace orrery::conformance;

}  // namespace orrery::test
