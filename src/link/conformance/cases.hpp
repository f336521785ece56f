// The cases of the suite (conformance.cpp says what each shows). All ranks call a case together, and it throws where
// something is not as it should be.
#pragma once

#include "orrery/world.hpp"

namespace orrery::conformance {

void rings(World& world);
void chained_rings(World& world);
void strided_messages(World& world);
void everybody_to_everybody(World& world);
void as_many_lanes_as_are_named(World& world);
void large_messages(World& world);
void many_messages_in_order(World& world);
void lanes_do_not_wait_for_each_other(World& world);
void later_exchanges_of_a_lane_overtake_nothing(World& world);
void done_becomes_true_and_times_are_told(World& world);
void sessions_take_turns(World& world);
void ragged_all_gather(World& world);
void all_reduce_adds_in_the_order_of_the_ranks(World& world);
void errors_are_agreed_on(World& world);
void misuse_is_a_bug(World& world);

// Rank 1 goes wrong, and the others find out as they should. It takes one to three timeouts of the world, which is good
// for nothing but closing afterwards.
void silent(World& world);
void absent(World& world);
void aborted(World& world);
void gone(World& world);
void in_another_run(World& world);

}  // namespace orrery::conformance
