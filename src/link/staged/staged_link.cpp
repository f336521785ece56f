#include "link/staged/staged_link.hpp"

#include <chrono>
#include <thread>
#include <utility>

#include "link/region.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr double kStuckSeconds = 5;  // no call that only puts work on a stream takes this long
constexpr std::chrono::microseconds kPause(20);

class StagedSession final : public StreamSession {
 public:
  StagedSession(StagedLink& link, std::unique_ptr<StagedTransfers> transfers)
      : link_(link), transfers_(std::move(transfers)) {}
  ~StagedSession() override {
    end_run();
    if (stuck_) static_cast<void>(transfers_.release());  // the thread may still use them
  }

  void begin_run(const RunName& run) override;
  void start(int exchange, device::EventHandle ready) override;
  void join(int exchange, device::StreamHandle stream, double timeout_seconds) override;
  void end_run() noexcept override;
  void wait(int exchange, double timeout_seconds) override;
  ExchangeTimes times(int exchange, device::EventHandle origin) const override {
    return {transfers_->began(exchange).seconds_since(origin), transfers_->ended(exchange).seconds_since(origin)};
  }

 private:
  void land(int exchange, double timeout_seconds);

  StagedLink& link_;
  std::unique_ptr<StagedTransfers> transfers_;
  bool running_ = false;
  bool stuck_ = false;
};

void StagedSession::begin_run(const RunName& run) {
  ORRERY_CHECK(!running_, "a run begins inside a run");
  transfers_->throw_if_failed();
  transfers_->begin_run(run);
  link_.thread().take(*transfers_);
  running_ = true;
}

void StagedSession::start(int exchange, device::EventHandle ready) {
  ORRERY_CHECK(running_ && exchange == transfers_->started(), "exchange ", exchange, " is started where ",
               transfers_->started(), " is next");
  transfers_->throw_if_failed();
  transfers_->start(ready);
  link_.thread().kick();
}

void StagedSession::join(int exchange, device::StreamHandle stream, double timeout_seconds) {
  land(exchange, timeout_seconds);
  device::wait(stream, transfers_->ended(exchange).handle());
}

void StagedSession::wait(int exchange, double timeout_seconds) {
  land(exchange, timeout_seconds);
  while (!transfers_->ended(exchange).reached()) std::this_thread::sleep_for(kPause);
}

void StagedSession::land(int exchange, double timeout_seconds) {
  ORRERY_CHECK(exchange < transfers_->started(), "exchange ", exchange, " is awaited, but was not started");
  link_.thread().caller_blocks(true);
  try {
    transfers_->wait_until_landed(exchange, timeout_seconds, link_.host_link().interrupted());
  } catch (const Error&) {
    link_.thread().caller_blocks(false);
    throw;
  }
  link_.thread().caller_blocks(false);
}

// The host link serves one run at a time and must be free for the world's own messages afterwards, so what was started
// is brought to its end here. What goes wrong is kept, and thrown when the next run begins.
void StagedSession::end_run() noexcept {
  if (!running_) return;
  running_ = false;
  try {
    for (int exchange = 0; exchange < transfers_->started(); ++exchange) land(exchange, link_.timeout_seconds());
  } catch (const Error&) {
    transfers_->fail(std::current_exception());
  }
  stuck_ = !link_.thread().release(kStuckSeconds);
  if (stuck_) {
    link_.host_link().set_broken();
  } else {
    transfers_->end_run();
  }
}

}  // namespace

std::unique_ptr<StreamSession> StagedLink::prepare(std::vector<LinkExchange> exchanges, std::byte*) {
  check_exchanges(exchanges, world_.rank(), world_.world_size());
  const device::DeviceGuard guard(streams_.device);
  return std::make_unique<StagedSession>(*this, std::make_unique<StagedTransfers>(streams_, host_link_, exchanges));
}

}  // namespace orrery
