// The messages of one session of the staged link, on their way: from the device down to pinned memory of the host, by
// the host link to the peer's, and up to its device. A thread moves them on: it looks where each exchange is, and puts
// the next copy on a stream or starts the next transfer. Nothing in it waits.
//
// Exchanges go down, and to the host link, in order of index, each after the exchanges in its `after` have come up. So
// one that waits holds back later ones, of other lanes too: schedules whose ranks list matching exchanges in one order
// lose time by it, never the way forward.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "device/pinned.hpp"
#include "device/stream.hpp"
#include "link/deadline.hpp"
#include "link/link.hpp"
#include "link/outstanding.hpp"
#include "link/transport/progress_thread.hpp"

namespace orrery {

struct StagingStreams {
  int device = 0;
  device::Stream down{device::Priority::high}, up{device::Priority::high};
};

class StagedTransfers final : public ProgressWork {
 public:
  StagedTransfers(const StagingStreams& streams, Link& host_link, const std::vector<LinkExchange>& exchanges);

  // While the thread does not serve.
  void begin_run(const RunName& run);
  void end_run() noexcept { host_->end_run(); }

  // By the caller, while it does.
  int started() const;
  void start(device::EventHandle ready);
  // Returns when the exchange's bytes are on the host and their way up has been put on a stream. Throws what the thread
  // met, or ErrorCode::peer when an exchange has been with the host link for this long.
  void wait_until_landed(int exchange, double timeout_seconds, const Interrupted* interrupted);
  void throw_if_failed() const;
  const device::Event& began(int exchange) const { return exchanges_[exchange].began; }
  const device::Event& ended(int exchange) const { return exchanges_[exchange].ended; }

  State poll() override;
  void fail(std::exception_ptr error) noexcept override;

 private:
  struct Copy {
    int peer = 0;
    Region device;              // simplified
    std::byte* host = nullptr;  // [device.bytes()], pinned
  };
  struct Exchange {
    int lane = 0;
    std::vector<Copy> sends, receives;
    std::vector<int> after;
    device::EventHandle ready = nullptr;
    device::Event began{device::Timing::on}, ended{device::Timing::on};
    device::Event below;  // what it sends is in pinned memory
    double sent_at = -1;  // steady seconds; with the host link since then
    bool landed = false;
  };

  bool may_go_down(const Exchange& exchange) const;
  void go_down(Exchange& exchange);
  void hand_over(int exchange);
  void come_up(Exchange& exchange);
  std::vector<Outstanding> overdue(double timeout_seconds) const;

  const StagingStreams& streams_;
  device::PinnedMemory pinned_;
  std::vector<Exchange> exchanges_;
  std::unique_ptr<LinkSession> host_;

  // Of the thread: how far the exchanges are, in order of index.
  int down_ = 0, sent_ = 0, all_landed_ = 0;

  mutable std::mutex mutex_;  // guards what follows, and `ready`, `sent_at` and `landed` of exchanges
  std::condition_variable changed_;
  int started_ = 0;
  std::exception_ptr failure_;
};

}  // namespace orrery
