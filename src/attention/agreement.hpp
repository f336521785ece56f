// Agreement: before ranks exchange anything they make sure that they are about to run the same thing. A rank that was
// started with other arguments, or is a call ahead, would otherwise wait for ever or, worse, compute something.
#pragma once

#include <cstdint>
#include <string>

#include "orrery/schedule.hpp"
#include "orrery/world.hpp"

namespace orrery {

std::uint64_t hash(const std::string& text);

// Collective. Throws ErrorCode::invalid on all ranks, naming the first rank and field that differ from rank 0, when
// texts of the form "name=value name=value ..." are not all the same.
void agree_on_plan(World& world, const std::string& plan_text);

// Collective. The same for the number of the call, its pass, and the hash of the plan.
void agree_on_call(World& world, std::uint64_t plan_hash, std::uint64_t call, Pass pass);

}  // namespace orrery
