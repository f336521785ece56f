// The link between devices of different processes that needs nothing but MPI: messages are staged through pinned memory
// of the host and travel by the world's host link. It is there to be right where NCCL is not built; for a step that
// depends on an exchange the host waits until its bytes have come.
//
// A run cannot be captured into a CUDA graph. While one is under way, the world is not to be used for anything else.
#pragma once

#include <memory>
#include <vector>

#include "link/mpi/mpi_link.hpp"
#include "link/mpi/stream_transfers.hpp"
#include "link/stream_link.hpp"

namespace orrery {

class StagedLink final : public StreamLink {
 public:
  StagedLink(MpiLink& host_link, int rank, int world_size, int device, double timeout_seconds)
      : host_link_(host_link),
        rank_(rank),
        world_size_(world_size),
        timeout_seconds_(timeout_seconds),
        streams_{.device = device} {}

  const char* name() const override { return "mpi"; }
  const char* refuses_capture() const override {
    return "a run that MPI carries through host memory cannot be captured into a CUDA graph; link the ranks by NCCL";
  }
  std::size_t staging_bytes(const std::vector<LinkExchange>&) const override { return 0; }
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte*) override;

  ProgressThread& thread() { return thread_; }
  MpiLink& host_link() { return host_link_; }
  double timeout_seconds() const { return timeout_seconds_; }

 private:
  MpiLink& host_link_;
  int rank_, world_size_;
  double timeout_seconds_;
  StagingStreams streams_;
  ProgressThread thread_;
};

}  // namespace orrery
