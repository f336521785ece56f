// The names of runs between devices. Before its first message of a run to a peer on a lane, a rank sends the name of
// its run, in the same group: both ends count messages from the beginning of a run, so a name meets a name. The host
// looks at what has come when the exchange is complete. That is too late to keep messages of another run out of the
// tensors, and soon enough that nobody takes the results for good ones.
//
// Names are sent from pinned memory of the host and received there, in two copies, one for each run that may be under
// way. A run that is captured into a CUDA graph is launched again and again, under names that nobody knows when it is
// captured: it sends none. So all ranks capture a run, or none does.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "device/pinned.hpp"
#include "link/run_name.hpp"
#include "orrery/transport.hpp"

namespace orrery {

class NamesInBand {
 public:
  // What each exchange moves, on which lane; empty messages are left out.
  struct Moved {
    int lane = 0;
    std::vector<StreamMessage> messages;
  };
  explicit NamesInBand(std::vector<Moved> exchanges);

  void begin_run(int copy, const RunName& run);
  // What the exchange moves in a run of that copy, the names first; and in one that is captured.
  const std::vector<StreamMessage>& group(int copy, int exchange) const { return groups_[copy][exchange]; }
  const std::vector<StreamMessage>& captured(int exchange) const { return exchanges_[exchange].messages; }
  // Of an exchange that is complete, and not captured: what is wrong with the names that came, if anything is.
  std::optional<std::string> fault(int copy, int exchange, int rank) const;

 private:
  struct Slot {
    int exchange = 0, peer = 0;
    std::size_t at = 0;  // among the names of a copy, of which the first is this rank's own
  };
  RunName* name(int copy, std::size_t at) const;

  static constexpr int kCopies = 2;

  std::vector<Moved> exchanges_;
  std::vector<Slot> slots_;  // in order of their exchanges
  std::size_t names_ = 1;    // of a copy
  device::PinnedMemory memory_;
  std::array<std::vector<std::vector<StreamMessage>>, kCopies> groups_;  // by copy and exchange
};

}  // namespace orrery
