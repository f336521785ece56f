// Links between ranks whose slices lie on devices. Like link.hpp's, but ordered by streams: an exchange is started
// behind the computation it depends on, and computation is put behind the exchanges it depends on; the host waits for
// neither. A plan's exchanges are prepared once, and nothing is created or allocated while it runs.
//
// Messages have no names. Between two ranks, on one lane, the n-th message sent is the n-th received.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "device/handles.hpp"
#include "link/link.hpp"

namespace orrery {

class StreamSession {
 public:
  virtual ~StreamSession() = default;

  // A run starts every exchange once, in order of index, or is abandoned after an error.
  // Messages of ranks whose runs have different names are found out: at the latest by a wait, or by the next run but
  // one, which throws ErrorCode::peer, naming both.
  virtual void begin_run(const RunName& run) = 0;
  void begin_run() { begin_run({}); }
  // Puts the exchange behind `ready`, an event recorded by the caller that stands for all computation it depends on,
  // and behind the exchanges in its `after`. Does not wait for peers.
  virtual void start(int exchange, device::EventHandle ready) = 0;
  // What is put on `stream` from now on waits for the exchange. A link may have to wait here, on the host, until the
  // peers have started theirs: throws ErrorCode::peer when it has waited timeout_seconds, naming the peer.
  virtual void join(int exchange, device::StreamHandle stream, double timeout_seconds) = 0;
  // After the last join of a run, or when a run is abandoned.
  virtual void end_run() noexcept = 0;

  // Blocks until the exchange is complete on the device, polling its peers' health; throws ErrorCode::peer with the
  // peer, the direction and the bytes when a peer is known to be gone, or when `timeout_seconds` have passed since the
  // exchange could begin (`ready` and `after` reached) without its end: one's own computation is not a peer's fault.
  virtual void wait(int exchange, double timeout_seconds) = 0;
  // Seconds from the `origin` event of the run (timing on, reached); the exchange must be complete.
  virtual ExchangeTimes times(int exchange, device::EventHandle origin) const = 0;
};

class StreamLink {
 public:
  virtual ~StreamLink() = default;

  virtual const char* name() const = 0;  // "nccl", "inprocess" or the transport's, as "mpi"
  // Why runs cannot be captured into a CUDA graph, in a sentence, or null when they can.
  virtual const char* refuses_capture() const { return nullptr; }
  // Makes the number of open lanes at least this. Collective, with the same number on all ranks; sessions that are
  // prepared stay as they are. A link that makes lanes as exchanges name them has nothing to do.
  virtual void open_lanes(int /* lanes */) {}
  // Bytes of device memory that a session of these exchanges needs beside their regions, for packing rows that do not
  // lie together.
  virtual std::size_t staging_bytes(const std::vector<LinkExchange>& exchanges) const = 0;
  // Local: no rank needs to call it together with another. The lanes of the exchanges are open. Regions lie on the
  // current device; regions and staging (256-byte aligned) must outlive the session.
  virtual std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte* staging) = 0;
};

}  // namespace orrery
