// Regions as messages. A message is the bytes of a region in their order, so a sender and a receiver of different
// shapes still agree on what each byte is.
#pragma once

#include "core/region.hpp"
#include "link/link.hpp"

namespace orrery {

// Copies from.bytes() bytes, which must be to.bytes().
void copy_region(const Region& to, const Region& from);

// Throws ErrorCode::bug for what no plan may ask of a link: a peer outside of the world or the rank itself, a negative
// lane or size, bytes without an address, an `after` that is not earlier.
void check_exchanges(const std::vector<LinkExchange>& exchanges, int rank, int world_size);

}  // namespace orrery
