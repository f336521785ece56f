// What every link between devices must do, written once against World::stream_link: threads and processes run the same
// functions. Each is called by all ranks together, with the device of this rank, and throws where something is not as
// it should be.
#pragma once

#include "orrery/device.hpp"
#include "orrery/world.hpp"

namespace orrery::test {

void stream_rings(World& world, Device device);          // step by step, on two lanes, strided and whole, and run again
void stream_chained_rings(World& world, Device device);  // everything started at once, held apart by `after` alone
void stream_relays(World& world, Device device);         // what came on one lane leaves on another
void stream_strided_messages(World& world, Device device);        // shapes that differ between sender and receiver
void stream_everybody_to_everybody(World& world, Device device);  // with messages of no bytes among them
void stream_lanes_open_as_asked(World& world, Device device);     // 1, 2, 3 and 5 of them, one after the other
void stream_messages_in_order(World& world, Device device);
void stream_computation_comes_first(World& world, Device device);  // a message has what was put on the stream before it
void stream_runs_follow_each_other(World& world, Device device);   // without the host waiting in between
void stream_large_messages(World& world, Device device);
void stream_times_are_told(World& world, Device device);
void stream_misuse_is_a_bug(World& world, Device device);
void stream_another_device_is_refused(World& world, Device device);

inline void conform_streams(World& world, Device device) {
  stream_lanes_open_as_asked(world, device);
  stream_rings(world, device);
  stream_chained_rings(world, device);
  stream_relays(world, device);
  stream_strided_messages(world, device);
  stream_everybody_to_everybody(world, device);
  stream_messages_in_order(world, device);
  stream_computation_comes_first(world, device);
  stream_runs_follow_each_other(world, device);
  stream_large_messages(world, device);
  stream_times_are_told(world, device);
  stream_misuse_is_a_bug(world, device);
  stream_another_device_is_refused(world, device);
}

}  // namespace orrery::test
