// The link between ranks that are threads: messages meet (rendezvous.hpp) and are copied by whichever thread brought
// the second of the two.
#pragma once

#include <memory>
#include <vector>

#include "link/inprocess/rendezvous.hpp"

namespace orrery {

class InprocessLink final : public Link {
 public:
  InprocessLink(Hub& hub, Channels& channels, int rank) : hub_(hub), channels_(channels), rank_(rank) {}
  std::unique_ptr<LinkSession> prepare(std::vector<LinkExchange> exchanges) override;

 private:
  class Copying final : public Carrier {
   public:
    void begin(int) override {}
    void carry(const Ticket& receive, const Ticket& send) override;
    void end(int) override {}
  };

  Hub& hub_;
  Channels& channels_;
  int rank_;
  Copying copying_;  // without state: all sessions share it
};

}  // namespace orrery
