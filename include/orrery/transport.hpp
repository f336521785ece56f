// A caller's transport: what carries a world where neither MPI nor NCCL does, such as a process group of a framework or
// plain sockets. A transport moves bytes and knows nothing else. The rest lives once, above it: which exchange may
// begin, the names of runs, deadlines that say who did not come, records, and devices, whose messages pass through host
// memory.
//
// Messages have no names. Between two ranks, on one lane, the n-th message that one posts to send is the n-th that the
// other posts to receive, and as long. Lanes do not wait for each other: a message moves when it is posted at both ends
// and all before it between these ranks, in its direction, on its lane have moved.
//
// One thread at a time calls a transport and what it prepared, and not always the same: a thread of Orrery's moves
// messages on while ranks compute. Nothing here waits for a peer, so that every wait can have a deadline. What fails
// throws: ErrorCode::peer, with the rank, for what befell a peer. The world is then good for nothing but closing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/error.hpp"
#include "orrery/region.hpp"
#include "orrery/world.hpp"

namespace orrery {

// The lanes of programs are numbered from 0, and few. Two below them are Orrery's own.
constexpr int kOwnLanes = 2, kRecordsLane = -1, kRunNamesLane = -2;

struct TransportMessage {
  int lane = 0;  // from -kOwnLanes up
  int peer = 0;  // never the rank itself
  bool receive = false;
  Region region;  // may hold no bytes; such a message moves like any other. Both ends agree on the total, not the shape
};

// Messages that were prepared together, by their number: those of one pass of a plan, say, posted run after run. At any
// time at most one set of a world has messages under way.
class PreparedMessages {
 public:
  // Afterwards nothing touches the memory of its messages, even of those under way; but see Transport::lets_go.
  virtual ~PreparedMessages() = default;

  // Posts these together, in this order. None of them is under way. Returns at once; allocates nothing.
  virtual void post(std::span<const int> messages) = 0;
  // Moves on what is under way, without waiting. Writes the numbers of messages that have become complete since, and
  // returns how many they are; `complete` has room for all messages. What was sent may be overwritten when its message
  // is complete; whether it has been received, nobody asks. Messages of one lane may become complete in their order.
  virtual std::size_t poll(std::span<int> complete) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;  // outlives what it prepared

  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual std::string name() const = 0;  // for reports: "sockets"
  // Equal texts mean one node. By default the name of this host.
  virtual std::string host() const;
  // Whether regions may be anything. Those that are not contiguous are else packed before they get here.
  virtual bool takes_strided_regions() const { return false; }
  // False where what is under way when its set is destroyed may still be written to, as by MPI. Its memory is then
  // given up where it is Orrery's own.
  virtual bool lets_go() const { return true; }
  // Local: no rank needs to call it together with another. Regions outlive what is returned.
  virtual std::unique_ptr<PreparedMessages> prepare(std::vector<TransportMessage> messages) = 0;
  // This rank cannot go on. The others' waits for it should end at once, and end anyway by their deadlines. Called at
  // most once; only then perhaps while another call has not returned.
  virtual void abort(ErrorCode code, std::string_view message) noexcept = 0;
};

// The same between devices, where transfers are ordered by streams, as NCCL orders its own: what is enqueued waits on
// the device for what stands before it, and the host waits for nothing.
struct StreamMessage {
  int peer = 0;
  bool receive = false;
  std::byte* data = nullptr;  // on the device; of a few bytes also in pinned memory of the host
  std::size_t bytes = 0;      // at least 1
};

class StreamTransport {
 public:
  virtual ~StreamTransport() = default;  // in good order, or after abort()

  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual const char* name() const = 0;  // for reports; lasts as long as this
  virtual Device device() const = 0;     // of this rank
  // How many lanes there are, numbered from 0, and makes them at least so many. Making is collective, waits for all
  // ranks as long as the world's timeout at most, and leaves what is under way on other lanes alone.
  virtual int lanes() const = 0;
  virtual void open_lanes(int lanes) = 0;
  virtual void* stream(int lane) const = 0;  // a cudaStream_t of its own
  // Puts the messages on the lane's stream as one group, whose sends and receives do not wait for each other. Between
  // two ranks, on one lane, messages meet by their order. By one thread at a time.
  virtual void enqueue(int lane, std::span<const StreamMessage> messages) = 0;
  // What went wrong since, in a sentence; empty when nothing did. Any thread.
  virtual std::string complaint() = 0;
  // Makes what is on the streams end, whatever it leaves in memory. Any thread, also while another is in a call.
  virtual void abort() noexcept = 0;
};

// The world of the ranks of a transport, of which each calls this. Throws ErrorCode::peer when not all come within the
// timeout, ErrorCode::invalid for a rank outside of its world. Of WorldOptions::device_link, "auto" and "nccl" are
// taken, and the transport's name, which stages what moves between devices through host memory.
std::unique_ptr<World> open_world(std::unique_ptr<Transport> transport, const WorldOptions& options);
// The same with `streams` between the devices, whatever the options name.
std::unique_ptr<World> open_world(std::unique_ptr<Transport> transport, std::unique_ptr<StreamTransport> streams,
                                  const WorldOptions& options);

}  // namespace orrery
