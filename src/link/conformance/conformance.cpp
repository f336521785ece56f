#include "orrery/conformance.hpp"

#include <array>
#include <iterator>

#include "link/conformance/cases.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

struct Entry {
  ConformanceCase known;
  void (*run)(World&);
};

using namespace conformance;

constexpr Entry kEntries[] = {
    {{"rings", "rotations on several lanes, awaited step by step, and run again"}, rings},
    {{"chained-rings", "the same, all started at once and held apart by their order alone"}, chained_rings},
    {{"strided", "regions whose shapes differ between sender and receiver"}, strided_messages},
    {{"everybody", "every rank to every other, with messages of no bytes among them"}, everybody_to_everybody},
    {{"many-lanes", "as many lanes as are named, all under way at once"}, as_many_lanes_as_are_named},
    {{"large", "messages larger than a network takes at once, one behind the other"}, large_messages},
    {{"in-order", "many messages on two lanes, matched by their order"}, many_messages_in_order},
    {{"lanes", "a lane that waits does not hold up another"}, lanes_do_not_wait_for_each_other},
    {{"overtaking", "what is ready early does not overtake its lane"}, later_exchanges_of_a_lane_overtake_nothing},
    {{"polling", "an exchange becomes done unasked, and tells its times"}, done_becomes_true_and_times_are_told},
    {{"sessions", "plans take turns, with agreements in between"}, sessions_take_turns},
    {{"all-gather", "records of different sizes"}, ragged_all_gather},
    {{"all-reduce", "sums in the order of the ranks"}, all_reduce_adds_in_the_order_of_the_ranks},
    {{"agreement", "an error of one rank is the error of all"}, errors_are_agreed_on},
    {{"misuse", "exchanges that make no sense are refused"}, misuse_is_a_bug},
    {{"silent", "a rank that does nothing is named when the deadline passes", true}, silent},
    {{"absent", "a rank that does not come to all_gather is named", true}, absent},
    {{"aborted", "a rank that aborts wakes those that wait for it", true}, aborted},
    {{"gone", "a rank that has closed its world, or died, is named by the deadline", true}, gone},
    {{"another-run", "messages of different runs do not meet", true}, in_another_run},
};

constexpr auto kCases = [] {
  std::array<ConformanceCase, std::size(kEntries)> cases{};
  for (std::size_t i = 0; i < cases.size(); ++i) cases[i] = kEntries[i].known;
  return cases;
}();

// Which case it was stands before what it says; a rank that met an error of another passes it on.
void run(const Entry& entry, World& world) {
  try {
    entry.run(world);
  } catch (const Error& error) {
    fail(error.code(), "conformance, ", entry.known.name, ": ", error.what());
  }
}

}  // namespace

std::span<const ConformanceCase> conformance_cases() {
  return kCases;
}

void conform(World& world, std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.known.name == name) return run(entry, world);
  }
  refuse("there is no case \"", name, "\" of conformance");
}

void conform(World& world) {
  for (const Entry& entry : kEntries) {
    if (!entry.known.fails) run(entry, world);
  }
}

}  // namespace orrery
