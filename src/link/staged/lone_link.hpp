// The device link of a world of one rank, which has nobody to send to: its exchanges are empty, and complete as soon as
// the computation before them is.
#pragma once

#include <memory>
#include <vector>

#include "link/stream_link.hpp"
#include "orrery/world.hpp"

namespace orrery {

class LoneStreamLink final : public StreamLink {
 public:
  explicit LoneStreamLink(const World& world) : world_(world) {}

  const char* name() const override { return world_.link_name().data(); }
  std::size_t staging_bytes(const std::vector<LinkExchange>&) const override { return 0; }
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte*) override;

 private:
  const World& world_;
};

}  // namespace orrery
