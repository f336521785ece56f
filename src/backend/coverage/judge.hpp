// The judgement after all ranks have run: whether each result holds exactly what the mask asks for, and whether every
// step was needed for some result.
#pragma once

#include "backend/coverage/effects.hpp"

namespace orrery::coverage {

// Judges the output buffers of one rank. Shares are counted in closed form, and compared pairwise for repetition.
void judge_results(Context& context, Effects& rank);

// Kept buffers count as results when nothing follows that would use them.
void keep_as_results(Context& context, const Effects& rank);

void judge_needless(Context& context, const std::vector<const RankProgram*>& programs_by_rank_and_pass, int world_size);

}  // namespace orrery::coverage
