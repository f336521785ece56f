// all_gather with a deadline, where there is no more than NCCL to carry it: records are copied to the device, gathered
// there, and copied back. NCCL connects ranks when it first moves a message of some size, and waits on the host for all
// of them. So messages have one of two sizes, a card and a piece. The gather moves one of each when it is made, in a
// call that is bounded (bounded.hpp). A card holds the size of a record and its beginning, and mostly the whole record.
//
// A wait that passes the deadline, or a fault that NCCL reports, aborts the communicator. Which rank did not come NCCL
// cannot tell. Every later call throws the error that was met.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "link/deadline.hpp"
#include "link/nccl/lanes.hpp"
#include "orrery/error.hpp"

namespace orrery::nccl {

class Gather {
 public:
  // Collective, and waits for all ranks. `theirs`, which stays the caller's, is split; nothing else is done with it.
  Gather(ncclComm_t theirs, const Seat& seat);
  ~Gather();

  std::vector<std::vector<std::byte>> operator()(std::span<const std::byte> mine, double timeout_seconds,
                                                 const Interrupted* interrupted);
  // Aborts the communicator, once; the first error is the one that is kept.
  void break_down(const Error& why) noexcept;
  void throw_if_broken() const;
  bool broken() const { return failure_.has_value(); }
  ncclComm_t communicator() const { return communicator_.get(); }

 private:
  struct Message;

  void start(std::size_t bytes);
  void finish(double timeout_seconds, const Interrupted* interrupted);

  const Seat seat_;
  Communicator communicator_;
  std::unique_ptr<Message> message_;
  std::optional<Error> failure_;
  bool stuck_ = false;  // the abort did not return: the device may still use the message
};

}  // namespace orrery::nccl
