// A program's exchanges as its link takes them: slices become regions of memory, dependencies on earlier exchanges
// their order. Dependencies on computation are the backend's.
#pragma once

#include <vector>

#include "backend/memory/arena.hpp"
#include "executor/hazards.hpp"
#include "link/link.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

struct ProgramExchanges {
  std::vector<LinkExchange> exchanges;
  std::vector<int> of_step;  // index among them, or -1 for a step that is no exchange
};

// `memory` holds the tensors of every buffer.
ProgramExchanges exchanges_of(const RankProgram& program, const Dependencies& dependencies,
                              const std::vector<BufferMemory>& memory);

// "[rank 1/4] forward step 7 exchange lane 0: " and what the link said.
std::string exchange_error(const RankProgram& program, int step, const std::string& said);

}  // namespace orrery
