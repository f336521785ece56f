#include "link/nccl/nccl_streams.hpp"

#include <algorithm>
#include <chrono>
#include <future>
#include <iterator>
#include <utility>

#include "link/nccl/bounded.hpp"
#include "link/nccl/check.hpp"
#include "link/outstanding.hpp"

namespace orrery::nccl {
namespace {

constexpr double kHandOverSeconds = 1;  // for which a caller inside NCCL may take to come out before an abort
constexpr double kAbortSeconds = 2;
constexpr double kCloseSeconds = 5;

}  // namespace

NcclStreams::~NcclStreams() {
  try {
    if (!aborted_) close();
  } catch (const std::exception&) {  // no thread or no memory to close it in: the process ends it
    for (Lane& lane : lanes_) lane.communicator.release();
  }
}

// In good order the communicators are destroyed, for which NCCL waits until all is quiet.
void NcclStreams::close() {
  const std::future<void> closed = begin([lanes = std::move(lanes_), device = seat_.device]() mutable {
    const device::DeviceGuard guard(device);
    lanes.clear();
  });
  static_cast<void>(ready(closed, Deadline(std::min(kCloseSeconds, timeout_seconds_))));
}

void NcclStreams::throw_if_aborted() const {
  if (aborted_) fail(ErrorCode::peer, "NCCL's communicators were aborted");
}

void NcclStreams::open_lanes(int lanes) {
  const int more = lanes - this->lanes();
  if (more <= 0) return;
  throw_if_aborted();
  auto made = begin([more, first = lanes_.front().communicator.get(), behind = lanes_.front().stream.handle(),
                     seat = seat_] { return more_lanes(more, first, behind, seat); });
  if (!ready(made, Deadline(timeout_seconds_, interrupted_))) {
    fail(ErrorCode::peer, "NCCL: not every rank opened ", lanes, " lanes within ", seconds_text(timeout_seconds_),
         " s");
  }
  std::vector<Lane> opened = made.get();
  const std::lock_guard lock(nccl_);
  std::move(opened.begin(), opened.end(), std::back_inserter(lanes_));
}

void NcclStreams::enqueue(int lane, std::span<const StreamMessage> messages) {
  const std::lock_guard lock(nccl_);
  throw_if_aborted();
  const ncclComm_t communicator = lanes_[static_cast<std::size_t>(lane)].communicator.get();
  const device::StreamHandle stream = lanes_[static_cast<std::size_t>(lane)].stream.handle();
  ORRERY_NCCL_CHECK(ncclGroupStart());
  // Whatever happens inside, the group is closed: it belongs to this thread, not to the communicator.
  ncclResult_t result = ncclSuccess;
  for (const StreamMessage& one : messages) {
    if (result != ncclSuccess) break;
    result = one.receive ? ncclRecv(one.data, one.bytes, ncclUint8, one.peer, communicator, stream)
                         : ncclSend(one.data, one.bytes, ncclUint8, one.peer, communicator, stream);
  }
  const ncclResult_t closed = ncclGroupEnd();
  throw_if_aborted();  // an abort may have been what ended it
  check(result == ncclSuccess ? closed : result, "a group of ncclSend and ncclRecv");
}

std::string NcclStreams::complaint() {
  const std::unique_lock lock(nccl_, std::try_to_lock);
  if (!lock.owns_lock() || aborted_) return {};
  for (const Lane& lane : lanes_) {
    ncclResult_t state = ncclSuccess;
    ORRERY_NCCL_CHECK(ncclCommGetAsyncError(lane.communicator.get(), &state));
    if (state != ncclSuccess && state != ncclInProgress) return "NCCL: " + explain(state);
  }
  return {};
}

void NcclStreams::abort() noexcept {
  if (aborted_.exchange(true)) return;
  try {
    abort_lanes();
  } catch (const std::exception&) {  // no thread to abort them in; the caller still throws, and the process ends
  }
}

// All lanes at once, for an abort waits for the device, on which the kernels of the others still spin. A caller that
// does not come out of NCCL is one more reason to abort: that is what gets it out.
void NcclStreams::abort_lanes() {
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

}  // namespace orrery::nccl
