// The device link of a world of one rank, which has nobody to send to: its exchanges are empty, and complete as soon as
// the computation before them is.
#pragma once

#include <memory>
#include <vector>

#include "link/stream_link.hpp"

namespace orrery {

class LoneStreamLink final : public StreamLink {
 public:
  const char* name() const override { return "mpi"; }
  std::size_t staging_bytes(const std::vector<LinkExchange>&) const override { return 0; }
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte*) override;
};

}  // namespace orrery
