// What a wait that took too long says: from whom nothing came, or who took nothing, and how much was still to move.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace orrery {

struct Outstanding {
  bool receive = true;
  int peer = 0;
  int lane = 0;
  std::int64_t bytes = 0, of_bytes = 0;
};

// Adds to the entry of the same direction, peer and lane, or makes one. Receives stand first: who sent nothing is the
// better suspect.
void add_outstanding(std::vector<Outstanding>& list, const Outstanding& more);

// "nothing from rank 2 for 5.0 s: 64 of 128 bytes outstanding to receive on lane 0; rank 1 took nothing ..."
std::string describe(const std::vector<Outstanding>& list, double seconds);
std::string describe_left(const Outstanding& one);  // "rank 2 has returned: 64 of 128 bytes outstanding to ..."

// "5.0": seconds with one decimal, or more where they would read as 0.
std::string seconds_text(double seconds);
// "rank 2", "ranks 2 and 3", "ranks 2, 3, 4 and 9 more".
std::string ranks_text(const std::vector<int>& ranks);

}  // namespace orrery
