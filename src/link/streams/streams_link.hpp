// The link between devices over a transport of streams. Its kernels spin until their peers come, and nothing on a
// stream can give up: so a thread of the link watches the exchanges that were started, and when a lane has not moved
// for the timeout, or the transport complains, it aborts the transport. The kernels then end, what waits behind them
// runs on whatever bytes are there, and every later call on the link throws the error that was met. A link does not
// recover.
//
// A run that is captured into a CUDA graph is not watched, nor are the graph's launches: they have no events.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "link/deadline.hpp"
#include "link/stream_link.hpp"
#include "orrery/error.hpp"
#include "orrery/transport.hpp"

namespace orrery {

class StreamsSession;

class StreamsLink final : public StreamLink {
 public:
  StreamsLink(std::unique_ptr<StreamTransport> transport, double timeout_seconds, const Interrupted* interrupted);
  ~StreamsLink() override;

  const char* name() const override { return transport_->name(); }
  void open_lanes(int lanes) override;
  std::size_t staging_bytes(const std::vector<LinkExchange>& exchanges) const override;
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte* staging) override;

  // For its sessions.
  StreamTransport& transport() const { return *transport_; }
  double timeout_seconds() const { return timeout_seconds_; }
  const Interrupted* interrupted() const { return interrupted_; }
  device::StreamHandle stream(int lane) const;
  void throw_if_broken() const;
  // Breaks the link, once; the first error is the one that is kept.
  void break_down(const Error& why) noexcept;
  void forget(StreamsSession& session);

 private:
  void watch();
  std::optional<Error> find_fault();  // with the mutex held

  const std::unique_ptr<StreamTransport> transport_;
  const double timeout_seconds_;
  const Interrupted* const interrupted_;
  const int exceptions_at_open_ = std::uncaught_exceptions();

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::optional<Error> failure_;
  std::vector<StreamsSession*> sessions_;
  bool closing_ = false;

  std::atomic<bool> broken_ = false;
  std::thread watchdog_;
};

}  // namespace orrery
