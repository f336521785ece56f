// MPI as a transport. MPI never reports a peer that died or hangs, so nothing here calls an MPI function that waits,
// but for MPI_Init and MPI_Finalize: the rest is started, polled, and given up at a deadline. The last resort is
// abort(), which must end this process even where MPI_Abort itself hangs on a dead link.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "link/deadline.hpp"
#include "link/mpi/handles.hpp"
#include "orrery/transport.hpp"

namespace orrery {

class MpiTransport final : public Transport {
 public:
  // Collective over the communicator, a pointer to an MPI_Comm, or over all processes where it is null; initialises MPI
  // when nobody has. Messages are cut into pieces of so many bytes.
  MpiTransport(const void* communicator, double timeout_seconds, const Interrupted& interrupted,
               std::int64_t piece_bytes);

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }
  std::string name() const override { return "mpi"; }
  bool takes_strided_regions() const override { return true; }
  bool lets_go() const override { return false; }
  std::unique_ptr<PreparedMessages> prepare(std::vector<TransportMessage> messages) override;
  // Prints the message, ends every rank of the job with the code, and does not return.
  void abort(ErrorCode code, std::string_view message) noexcept override;

  bool open() const;  // false when a caller finalised MPI too early; then nothing of it may be touched
  bool finalises() const { return initialised_here_; }
  void finalise(double timeout_seconds);
  // Behind an error: MPI is not called any more, and the launcher ends the job.
  void forget() { comm_.forget(); }

 private:
  bool initialised_here_;
  std::int64_t piece_bytes_;
  Communicator comm_;
  int rank_, world_size_;
};

}  // namespace orrery
