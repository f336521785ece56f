// The link between ranks that are processes: one progress thread, and sessions that hand it their transfers for a run.
#pragma once

#include <memory>
#include <vector>

#include "link/deadline.hpp"
#include "link/link.hpp"
#include "link/mpi/handles.hpp"
#include "link/mpi/progress_thread.hpp"

namespace orrery {

class MpiLink final : public Link {
 public:
  MpiLink(MPI_Comm comm, int rank, int world_size, std::int64_t piece_bytes, const Interrupted* interrupted)
      : comm_(comm), rank_(rank), world_size_(world_size), piece_bytes_(piece_bytes), interrupted_(interrupted) {}

  std::unique_ptr<LinkSession> prepare(std::vector<LinkExchange> exchanges) override;

  ProgressThread& thread() { return thread_; }
  const Interrupted* interrupted() const { return interrupted_; }
  // Once transfers were left in flight, nothing that is sent later can be trusted to meet what it belongs to.
  bool broken() const { return broken_; }
  void set_broken() { broken_ = true; }
  // Keeps the progress thread out of MPI, for a caller that is about to abort.
  void quiesce() noexcept;

 private:
  MPI_Comm comm_;
  int rank_, world_size_;
  std::int64_t piece_bytes_;
  const Interrupted* interrupted_;
  bool broken_ = false;
  ProgressThread thread_;
};

}  // namespace orrery
