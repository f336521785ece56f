// What threads find at barriers, in the order in which the kernels of barriers.cu look.
#include "gpu/kernel/sm90/probes.hpp"
#include "support/catch.hpp"

namespace orrery::test::sm90 {
namespace {

using Found = std::vector<int>;

TEST_CASE("a phase ends with the last of the arrivals that it expects") {
  const Found expected = {1,  // the phase before the first
                          0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1};
  CHECK(arrivals() == expected);
}

TEST_CASE("a wait for a phase ends after what was written before the arrival") {
  CHECK(messages() == Found{101, 202, 303, 404, 505, 606, 707, 808});
}

TEST_CASE("a phase that expects bytes ends when all of them have come") {
  Found expected = {0, 0};
  for (int row = 1; row <= 16; ++row) expected.push_back(64 * row);
  expected.insert(expected.end(), {1, 0});
  CHECK(bytes_expected() == expected);
}

TEST_CASE("a named barrier holds those who wait, not those who arrive") {
  CHECK(named() == Found{7, 8, 9});
}

TEST_CASE("one lane of a warp is elected") {
  CHECK(elected() == Found{1, 1, 1});
}

TEST_CASE("warpgroups hold as many registers as another gave away") {
  std::vector<float> in(kHeld * kHolders), reversed(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  for (std::size_t i = 0; i < kHeld; ++i) {
    for (std::size_t holder = 0; holder < kHolders; ++holder) {
      reversed[i * kHolders + holder] = in[(kHeld - 1 - i) * kHolders + holder];
    }
  }
  const bool same = held(in) == reversed;
  CHECK(same);
}

}  // namespace
}  // namespace orrery::test::sm90
