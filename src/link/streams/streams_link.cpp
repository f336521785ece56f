#include "link/streams/streams_link.hpp"

#include <chrono>
#include <numeric>
#include <system_error>
#include <utility>

#include "device/check.hpp"
#include "link/region.hpp"
#include "link/streams/streams_session.hpp"

namespace orrery {
namespace {

constexpr std::chrono::milliseconds kWatchPeriod(50);
constexpr double kForEver = 1e9;  // a timeout this long is none, and needs no watchdog

}  // namespace

StreamsLink::StreamsLink(std::unique_ptr<StreamTransport> transport, double timeout_seconds,
                         const Interrupted* interrupted)
    : transport_(std::move(transport)), timeout_seconds_(timeout_seconds), interrupted_(interrupted) {
  if (timeout_seconds >= kForEver) return;
  try {
    watchdog_ = std::thread([this] { watch(); });
  } catch (const std::system_error& error) {
    fail(ErrorCode::resource, "cannot start the watchdog of the link between devices: ", error.what());
  }
}

StreamsLink::~StreamsLink() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (watchdog_.joinable()) watchdog_.join();
  // Behind an error the device may never be quiet, for which closing in good order would wait.
  if (!broken_ && std::uncaught_exceptions() > exceptions_at_open_) transport_->abort();
}

void StreamsLink::open_lanes(int lanes) {
  if (lanes <= transport_->lanes()) return;
  throw_if_broken();
  try {
    transport_->open_lanes(lanes);
  } catch (const Error& error) {
    break_down(error);  // which gets a call that hangs out of the transport
    throw;
  }
}

device::StreamHandle StreamsLink::stream(int lane) const {
  return static_cast<device::StreamHandle>(transport_->stream(lane));
}

std::size_t StreamsLink::staging_bytes(const std::vector<LinkExchange>& exchanges) const {
  const auto of_lane = StreamsSession::staging_bytes(exchanges);
  return std::accumulate(of_lane.begin(), of_lane.end(), std::size_t{0});
}

std::unique_ptr<StreamSession> StreamsLink::prepare(std::vector<LinkExchange> exchanges, std::byte* staging) {
  check_exchanges(exchanges, transport_->rank(), transport_->world_size());
  throw_if_broken();
  const device::DeviceGuard guard(transport_->device().index);
  auto session = std::make_unique<StreamsSession>(*this, exchanges, staging);
  const std::lock_guard lock(mutex_);
  sessions_.push_back(session.get());
  return session;
}

void StreamsLink::forget(StreamsSession& session) {
  const std::lock_guard lock(mutex_);
  std::erase(sessions_, &session);
}

void StreamsLink::throw_if_broken() const {
  if (!broken_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw Error(*failure_);
}

void StreamsLink::break_down(const Error& why) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = why;
    broken_.store(true, std::memory_order_release);
  }
  transport_->abort();
}

void StreamsLink::watch() {
  // Querying events here must not disturb a graph that is captured elsewhere.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kWatchPeriod, [this] { return closing_; })) {
    std::optional<Error> met;
    try {
      met = find_fault();
    } catch (const Error& error) {  // of CUDA, when the device itself is lost
      met = error;
    }
    if (!met) continue;
    lock.unlock();
    return break_down(*met);
  }
}

std::optional<Error> StreamsLink::find_fault() {
  if (broken_) return {};
  const std::string said = transport_->complaint();
  for (StreamsSession* session : sessions_) {
    std::optional<Error> met = session->fault(session->watched, timeout_seconds_, said);
    if (met) return met;
  }
  return {};
}

}  // namespace orrery
