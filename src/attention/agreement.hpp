// Agreement: before ranks exchange anything they make sure that they are about to run the same thing. A rank that was
// started with other arguments, or is a call ahead, would otherwise wait for ever or, worse, compute something.
#pragma once

#include <cstdint>
#include <string>

#include "link/run_name.hpp"
#include "orrery/world.hpp"

namespace orrery {

std::uint64_t hash(const std::string& text);

// Collective. Throws ErrorCode::invalid on all ranks, naming the first rank and field that differ from rank 0, when
// texts of the form "name=value name=value ..." are not all the same. What travels are their hashes, and the texts of
// these two ranks when hashes differ.
void agree_on_plan(World& world, const std::string& plan_text);

// Collective. The same for the name of the run; or when a rank objects to it, with the lowest such rank's objection.
void agree_on_call(World& world, const RunName& run, const std::string& objection);

}  // namespace orrery
