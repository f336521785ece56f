// Arithmetic on regions. A region lists its bytes in one order, counts[0] outermost and the run innermost; a message is
// those bytes in that order, so a sender and a receiver of different shapes still agree on what each byte is.
#pragma once

#include "link/link.hpp"

namespace orrery {

// The same bytes in the same order with the fewest loops: loops of one are dropped and loops that continue where the
// inner one ends are merged. What remains stands at the inner end; a region of no bytes becomes one run of none.
Region simplified(const Region& region);

// Copies from.bytes() bytes, which must be to.bytes().
void copy_region(const Region& to, const Region& from);

// Throws ErrorCode::bug for what no plan may ask of a link: a peer outside of the world or the rank itself, a negative
// lane or size, bytes without an address, an `after` that is not earlier.
void check_exchanges(const std::vector<LinkExchange>& exchanges, int rank, int world_size);

}  // namespace orrery
