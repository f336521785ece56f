#include "link/transport/transport_link.hpp"

#include <utility>

#include "link/region.hpp"
#include "link/transport/transfers.hpp"

namespace orrery {
namespace {

constexpr double kStuckSeconds = 1;      // no call that only polls takes this long
constexpr double kQuiesceSeconds = 0.2;  // before an abort, which must not wait for anything for long

class TransportSession final : public LinkSession {
 public:
  TransportSession(TransportLink& link, std::unique_ptr<Transfers> transfers)
      : link_(link), transfers_(std::move(transfers)) {}
  ~TransportSession() override;

  void begin_run(const RunName& run) override;
  void start(int exchange) override;
  bool done(int exchange) override;
  void wait(int exchange, double timeout_seconds) override;
  ExchangeTimes times(int exchange) const override { return transfers_->times(exchange); }
  void end_run() noexcept override;

 private:
  // Tells the progress thread, for as long as it lives, that somebody is waiting.
  class Blocked {
   public:
    explicit Blocked(ProgressThread& thread) : thread_(thread) { thread_.caller_blocks(true); }
    ~Blocked() { thread_.caller_blocks(false); }
    Blocked(const Blocked&) = delete;
    Blocked& operator=(const Blocked&) = delete;

   private:
    ProgressThread& thread_;
  };

  TransportLink& link_;
  std::unique_ptr<Transfers> transfers_;
  bool running_ = false;
  bool stuck_ = false;  // the progress thread did not come back from the transport
};

TransportSession::~TransportSession() {
  end_run();
  // The thread, or the transport, may still use them, until the process is aborted.
  if (stuck_ || (transfers_->in_flight() && !link_.lets_go())) static_cast<void>(transfers_.release());
}

void TransportSession::begin_run(const RunName& run) {
  ORRERY_CHECK(!running_, "a run begins inside a run");
  if (link_.broken()) fail(ErrorCode::peer, "an earlier run left transfers in flight on this link");
  transfers_->begin_run(run);
  link_.thread().take(*transfers_);
  running_ = true;
}

void TransportSession::start(int exchange) {
  ORRERY_CHECK(running_ && exchange == transfers_->started(), "exchange ", exchange, " is started where ",
               transfers_->started(), " is next");
  if (transfers_->failed()) transfers_->rethrow();
  transfers_->start();
  link_.thread().kick();
}

bool TransportSession::done(int exchange) {
  if (transfers_->done(exchange)) return true;
  if (transfers_->failed()) transfers_->rethrow();
  return false;
}

void TransportSession::wait(int exchange, double timeout_seconds) {
  if (transfers_->done(exchange)) return;
  ORRERY_CHECK(running_ && exchange < transfers_->started(), "exchange ", exchange, " is awaited, but was not started");
  {
    const Blocked blocked(link_.thread());
    transfers_->sleep_until_done(exchange, Deadline(timeout_seconds, link_.interrupted()));
  }
  if (done(exchange)) return;
  // What is outstanding can be read when the thread has let go; the last moment may still have brought it.
  if (!link_.thread().release(kStuckSeconds)) {
    stuck_ = true;
    link_.set_broken();
    transfers_->fail(std::make_exception_ptr(
        Error(ErrorCode::peer, concat("exchange ", exchange, " is not complete after ", seconds_text(timeout_seconds),
                                      " s, and a call of the transport does not return"))));
  } else if (done(exchange)) {
    return link_.thread().take(*transfers_);
  } else {
    link_.set_broken();
    transfers_->fail(
        std::make_exception_ptr(Error(ErrorCode::peer, describe(transfers_->outstanding(exchange), timeout_seconds))));
  }
  transfers_->rethrow();
}

void TransportSession::end_run() noexcept {
  if (!running_) return;
  running_ = false;
  stuck_ = stuck_ || !link_.thread().release(kStuckSeconds);
  if (stuck_ || transfers_->failed() || transfers_->in_flight()) link_.set_broken();
}

}  // namespace

std::unique_ptr<LinkSession> TransportLink::prepare(std::vector<LinkExchange> exchanges) {
  check_exchanges(exchanges, transport_.rank(), transport_.world_size());
  ORRERY_CHECK(!thread_.serving(), "exchanges are prepared while a run is under way");
  return std::make_unique<TransportSession>(*this, std::make_unique<Transfers>(transport_, exchanges));
}

void TransportLink::quiesce() noexcept {
  static_cast<void>(thread_.release(kQuiesceSeconds));
}

}  // namespace orrery
