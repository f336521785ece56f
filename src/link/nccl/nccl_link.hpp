// The link between devices by NCCL. NCCL's kernels spin until their peers come, and nothing on a stream can give up: so
// a thread of the link watches the exchanges that were started, and when a lane has not moved for the timeout, or NCCL
// reports a fault, it aborts the communicators. The kernels then end, what waits behind them runs on whatever bytes are
// there, and every later call on the link throws the error that was met. A link does not recover.
//
// A run that is captured into a CUDA graph is not watched, nor are the graph's launches: they have no events.
#pragma once

#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "link/deadline.hpp"
#include "link/nccl/lanes.hpp"
#include "link/stream_link.hpp"
#include "orrery/error.hpp"

namespace orrery::nccl {

class NcclSession;

// One message, contiguous on the wire.
struct Transfer {
  int peer = 0;
  Region region;              // simplified
  std::byte* wire = nullptr;  // [region.bytes()]: the region itself, or its place in the staging
  bool packed() const { return wire != region.data; }
};

class NcclLink final : public StreamLink {
 public:
  NcclLink(std::vector<Lane> lanes, const Seat& seat, double timeout_seconds, const Interrupted* interrupted);
  ~NcclLink() override;

  const char* name() const override { return "nccl"; }
  void open_lanes(int lanes) override;
  std::size_t staging_bytes(const std::vector<LinkExchange>& exchanges) const override;
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte* staging) override;

  // For its sessions.
  const Seat& seat() const { return seat_; }
  double timeout_seconds() const { return timeout_seconds_; }
  const Interrupted* interrupted() const { return interrupted_; }
  int lanes() const { return static_cast<int>(lanes_.size()); }
  device::StreamHandle stream(int lane) const { return lanes_[lane].stream.handle(); }
  void transfer(int lane, const std::vector<Transfer>& sends, const std::vector<Transfer>& receives);
  void throw_if_broken() const;
  // Breaks the link, once; the first error is the one that is kept.
  void break_down(const Error& why) noexcept;
  std::string complaint();  // of NCCL itself, about what happened behind our back; empty when it has none
  void forget(NcclSession& session);

 private:
  void watch();
  std::optional<Error> find_fault();  // with the mutex held
  void abort_lanes();
  void close();

  const Seat seat_;
  const double timeout_seconds_;
  const Interrupted* const interrupted_;
  const int exceptions_at_open_ = std::uncaught_exceptions();
  std::vector<Lane> lanes_;
  std::timed_mutex nccl_;  // held by who calls NCCL on a communicator, or adds one

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::optional<Error> failure_;
  std::vector<NcclSession*> sessions_;
  bool closing_ = false;

  std::atomic<bool> broken_ = false;
  std::thread watchdog_;
};

}  // namespace orrery::nccl
