// A lane is a communicator of its own and the stream on which all its exchanges are put, in order: NCCL works off what
// is given to one communicator one group after the other, so two lanes on one would wait for each other.
//
// Lanes are made by all ranks together, as many as the programs state that are to run, for a session is prepared by one
// rank alone. They are warmed there too: NCCL connects a pair when it first sends, which takes long and waits on the
// host for the peer. One byte goes each way on every lane, between all pairs of a small world; in a large one, where
// the memory of so many connections would count, between neighbours of the ring, and other pairs connect in their first
// exchange.
//
// The communicators block: their non-blocking kind starts a thread for every group. Making them can then hang on a rank
// that never comes, which is why the whole of it is one bounded call (bounded.hpp).
#pragma once

#include <nccl.h>

#include <utility>
#include <vector>

#include "device/stream.hpp"

namespace orrery::nccl {

constexpr int kAllPairsWarmed = 16;  // ranks of a small world

class Communicator {
 public:
  Communicator() = default;
  explicit Communicator(ncclComm_t handle) : handle_(handle) {}
  Communicator(Communicator&& other) noexcept : handle_(other.release()) {}
  Communicator& operator=(Communicator&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Communicator() {
    if (handle_ != nullptr) ncclCommDestroy(handle_);
  }
  ncclComm_t get() const { return handle_; }
  ncclComm_t release() { return std::exchange(handle_, nullptr); }

 private:
  ncclComm_t handle_ = nullptr;
};

struct Lane {
  Communicator communicator;
  device::Stream stream{
      device::Priority::high};  // kernels of NCCL go before the blocks of attention that wait for an SM
};

struct Seat {
  int rank = 0, world_size = 1;
  int device = 0;
};
Seat seat_of(ncclComm_t communicator);

// Collective: a communicator of the same ranks, which blocks. Nothing may be under way on `parent`, which is of either
// kind.
Communicator split(ncclComm_t parent, const Seat& seat);

// Collective, and waits for all ranks. `theirs`, which stays the caller's, is split; nothing else is done with it.
std::vector<Lane> make_lanes(int count, const ncclUniqueId& id, const Seat& seat);
std::vector<Lane> make_lanes(int count, ncclComm_t theirs, const Seat& seat);
// The same beside a lane that there is; what was put on that is awaited first. The lane outlives the call or is
// aborted.
std::vector<Lane> more_lanes(int count, ncclComm_t first, device::StreamHandle stream, const Seat& seat);

}  // namespace orrery::nccl
