// What every world and link must do, written once against World: threads and processes run the same functions. Each is
// called by all ranks together and throws where something is not as it should be.
#pragma once

#include "orrery/world.hpp"

namespace orrery::test {

void rings(World& world);                       // rotations on several lanes, awaited step by step, and run again
void chained_rings(World& world);               // the same with everything started at once, held apart by `after` alone
void strided_messages(World& world);            // shapes that differ between sender and receiver, cut anywhere
void everybody_to_everybody(World& world);      // two-way exchanges with messages of no bytes among them
void as_many_lanes_as_are_named(World& world);  // 1, 2, 3 and 5 of them, all under way at once
void many_messages_in_order(World& world);
void lanes_do_not_wait_for_each_other(World& world);
void later_exchanges_of_a_lane_overtake_nothing(World& world);
void done_becomes_true_and_times_are_told(World& world);
void sessions_take_turns(World& world);
void ragged_all_gather(World& world);
void all_reduce_adds_in_the_order_of_the_ranks(World& world);
void errors_are_agreed_on(World& world);
void runs_allocate_nothing(World& world);
void misuse_is_a_bug(World& world);

inline void conform(World& world) {
  rings(world);
  chained_rings(world);
  strided_messages(world);
  everybody_to_everybody(world);
  as_many_lanes_as_are_named(world);
  many_messages_in_order(world);
  lanes_do_not_wait_for_each_other(world);
  later_exchanges_of_a_lane_overtake_nothing(world);
  done_becomes_true_and_times_are_told(world);
  sessions_take_turns(world);
  ragged_all_gather(world);
  all_reduce_adds_in_the_order_of_the_ranks(world);
  errors_are_agreed_on(world);
  runs_allocate_nothing(world);
  misuse_is_a_bug(world);
}

}  // namespace orrery::test
