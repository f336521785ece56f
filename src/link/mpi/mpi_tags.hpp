// Tags on a world's communicator: a lane is its own tag; what is above all lanes is for the world itself.
#pragma once

#include <cstdint>

namespace orrery {

constexpr int kLanes = 32000;  // MPI promises tags up to 32767
constexpr int kGatherSizeTag = kLanes, kGatherDataTag = kLanes + 1, kRunNameTag = kLanes + 2;
constexpr std::int64_t kLargestRecords = std::int64_t{1}
                                         << 30;  // all_gather is for small records; MPI counts with an int

}  // namespace orrery
