// The link between devices of different processes that needs nothing but a transport between their hosts: messages are
// staged through pinned memory and travel by the world's host link. It is there to be right where NCCL is not built;
// for a step that depends on an exchange the host waits until its bytes have come.
//
// A run cannot be captured into a CUDA graph. While one is under way, the world is not to be used for anything else.
#pragma once

#include <memory>
#include <vector>

#include "link/staged/staged_transfers.hpp"
#include "link/stream_link.hpp"
#include "link/transport/transport_link.hpp"

namespace orrery {

class StagedLink final : public StreamLink {
 public:
  StagedLink(const World& world, TransportLink& host_link, int device)
      : world_(world), host_link_(host_link), streams_{.device = device} {}

  const char* name() const override { return world_.link_name().data(); }
  const char* refuses_capture() const override {
    return "a run that is carried through host memory cannot be captured into a CUDA graph; link the ranks by NCCL";
  }
  std::size_t staging_bytes(const std::vector<LinkExchange>&) const override { return 0; }
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte*) override;

  ProgressThread& thread() { return thread_; }
  TransportLink& host_link() { return host_link_; }
  double timeout_seconds() const { return world_.timeout_seconds(); }

 private:
  const World& world_;
  TransportLink& host_link_;
  StagingStreams streams_;
  ProgressThread thread_;
};

}  // namespace orrery
