#include "link/inprocess/inprocess_link.hpp"

#include "link/region.hpp"

namespace orrery {

void InprocessLink::Copying::carry(const Ticket& receive, const Ticket& send) {
  copy_region(receive.region, send.region);
}

std::unique_ptr<LinkSession> InprocessLink::prepare(std::vector<LinkExchange> exchanges) {
  check_exchanges(exchanges, rank_, hub_.world_size());
  return std::make_unique<Rendezvous>(hub_, channels_, rank_, exchanges, copying_);
}

}  // namespace orrery
