#include "link/nccl/nccl_link.hpp"

#include <algorithm>
#include <chrono>
#include <future>
#include <iterator>
#include <numeric>
#include <system_error>
#include <utility>

#include "device/check.hpp"
#include "link/nccl/bounded.hpp"
#include "link/nccl/check.hpp"
#include "link/nccl/nccl_session.hpp"
#include "link/region.hpp"

namespace orrery::nccl {
namespace {

constexpr std::chrono::milliseconds kWatchPeriod(50);
constexpr double kForEver = 1e9;        // a timeout this long is none, and needs no watchdog
constexpr double kHandOverSeconds = 1;  // for which a caller inside NCCL may take to come out before an abort
constexpr double kAbortSeconds = 2;
constexpr double kCloseSeconds = 5;

}  // namespace

NcclLink::NcclLink(std::vector<Lane> lanes, const Seat& seat, double timeout_seconds, const Interrupted* interrupted)
    : seat_(seat), timeout_seconds_(timeout_seconds), interrupted_(interrupted), lanes_(std::move(lanes)) {
  if (timeout_seconds >= kForEver) return;
  try {
    watchdog_ = std::thread([this] { watch(); });
  } catch (const std::system_error& error) {
    fail(ErrorCode::resource, "cannot start the watchdog of the NCCL link: ", error.what());
  }
}

NcclLink::~NcclLink() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (watchdog_.joinable()) watchdog_.join();
  try {
    if (!broken_) close();
  } catch (const std::exception&) {  // no thread or no memory to close it in: the process ends it
    for (Lane& lane : lanes_) lane.communicator.release();
  }
}

// In good order the communicators are destroyed, for which NCCL waits until all is quiet; behind an error it may never
// be, and they are aborted.
void NcclLink::close() {
  if (std::uncaught_exceptions() > exceptions_at_open_) return abort_lanes();
  const std::future<void> closed = begin([lanes = std::move(lanes_), device = seat_.device]() mutable {
    const device::DeviceGuard guard(device);
    lanes.clear();
  });
  static_cast<void>(ready(closed, Deadline(std::min(kCloseSeconds, timeout_seconds_))));
}

void NcclLink::open_lanes(int lanes) {
  const int more = lanes - this->lanes();
  if (more <= 0) return;
  throw_if_broken();
  auto made = begin([more, first = lanes_.front().communicator.get(), behind = stream(0), seat = seat_] {
    return more_lanes(more, first, behind, seat);
  });
  try {
    if (!ready(made, Deadline(timeout_seconds_, interrupted_))) {
      fail(ErrorCode::peer, "NCCL: not every rank opened ", lanes, " lanes within ", seconds_text(timeout_seconds_),
           " s");
    }
  } catch (const Error& error) {
    break_down(error);  // which gets the call out of NCCL
    throw;
  }
  std::vector<Lane> opened = made.get();
  const std::lock_guard lock(nccl_);
  std::move(opened.begin(), opened.end(), std::back_inserter(lanes_));
}

std::size_t NcclLink::staging_bytes(const std::vector<LinkExchange>& exchanges) const {
  const auto of_lane = NcclSession::staging_bytes(exchanges);
  return std::accumulate(of_lane.begin(), of_lane.end(), std::size_t{0});
}

std::unique_ptr<StreamSession> NcclLink::prepare(std::vector<LinkExchange> exchanges, std::byte* staging) {
  check_exchanges(exchanges, seat_.rank, seat_.world_size);
  throw_if_broken();
  const device::DeviceGuard guard(seat_.device);
  auto session = std::make_unique<NcclSession>(*this, exchanges, staging);
  const std::lock_guard lock(mutex_);
  sessions_.push_back(session.get());
  return session;
}

void NcclLink::forget(NcclSession& session) {
  const std::lock_guard lock(mutex_);
  std::erase(sessions_, &session);
}

void NcclLink::transfer(int lane, const std::vector<Transfer>& sends, const std::vector<Transfer>& receives) {
  const std::lock_guard lock(nccl_);
  throw_if_broken();
  const ncclComm_t communicator = lanes_[lane].communicator.get();
  const device::StreamHandle stream = lanes_[lane].stream.handle();
  ORRERY_NCCL_CHECK(ncclGroupStart());
  // Whatever happens inside, the group is closed: it belongs to this thread, not to the communicator.
  ncclResult_t result = ncclSuccess;
  for (const Transfer& send : sends) {
    if (result != ncclSuccess) break;
    result =
        ncclSend(send.wire, static_cast<std::size_t>(send.region.bytes()), ncclUint8, send.peer, communicator, stream);
  }
  for (const Transfer& receive : receives) {
    if (result != ncclSuccess) break;
    result = ncclRecv(receive.wire, static_cast<std::size_t>(receive.region.bytes()), ncclUint8, receive.peer,
                      communicator, stream);
  }
  const ncclResult_t closed = ncclGroupEnd();
  throw_if_broken();  // the watchdog may have been what ended it
  check(result == ncclSuccess ? closed : result, "a group of ncclSend and ncclRecv");
}

void NcclLink::throw_if_broken() const {
  if (!broken_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw Error(*failure_);
}

void NcclLink::break_down(const Error& why) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = why;
    broken_.store(true, std::memory_order_release);
  }
  try {
    abort_lanes();
  } catch (const std::exception&) {  // no thread to abort them in; the caller still throws, and the process ends
  }
}

// All lanes at once, for an abort waits for the device, on which the kernels of the others still spin. A caller that
// does not come out of NCCL is one more reason to abort: that is what gets it out.
void NcclLink::abort_lanes() {
  std::unique_lock lock(nccl_, std::defer_lock);
  static_cast<void>(lock.try_lock_for(std::chrono::duration<double>(kHandOverSeconds)));
  std::vector<std::future<void>> aborts;
  for (Lane& lane : lanes_) {
    const ncclComm_t communicator = lane.communicator.release();
    if (communicator == nullptr) continue;
    aborts.push_back(begin([communicator, device = seat_.device] {
      const device::DeviceGuard guard(device);
      ncclCommAbort(communicator);
    }));
  }
  const Deadline deadline(kAbortSeconds);
  for (const std::future<void>& abort : aborts) static_cast<void>(ready(abort, deadline));
}

std::string NcclLink::complaint() {
  const std::unique_lock lock(nccl_, std::try_to_lock);
  if (!lock.owns_lock() || broken_) return {};
  for (const Lane& lane : lanes_) {
    ncclResult_t state = ncclSuccess;
    ORRERY_NCCL_CHECK(ncclCommGetAsyncError(lane.communicator.get(), &state));
    if (state != ncclSuccess && state != ncclInProgress) return "NCCL: " + explain(state);
  }
  return {};
}

void NcclLink::watch() {
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

std::optional<Error> NcclLink::find_fault() {
  if (broken_) return {};
  const std::string said = complaint();
  for (NcclSession* session : sessions_) {
    std::optional<Error> met = session->fault(session->watched, timeout_seconds_, said);
    if (met) return met;
  }
  return {};
}

}  // namespace orrery::nccl
