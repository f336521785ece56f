#include "link/nccl/gather.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>

#include "device/check.hpp"
#include "device/pinned.hpp"
#include "device/stream.hpp"
#include "link/deadline.hpp"
#include "link/nccl/bounded.hpp"
#include "link/nccl/check.hpp"
#include "link/outstanding.hpp"
#include "link/streams/capture.hpp"
#include "orrery/device.hpp"

namespace orrery::nccl {
namespace {

constexpr std::size_t kCardBytes = 512, kPieceBytes = 16384;
constexpr std::size_t kOnCard = kCardBytes - sizeof(std::int64_t);  // of the record
constexpr const char* kPurpose = "the records of NCCL's ranks";
constexpr double kAbortSeconds = 2;
constexpr double kCloseSeconds = 5;
constexpr auto kSpinning = std::chrono::milliseconds(1);
constexpr auto kNap = std::chrono::microseconds(50);

}  // namespace

// What is moved, at both ends of its way: this rank's part, and those of all ranks side by side.
struct Gather::Message {
  explicit Message(const Seat& seat)
      : device_mine({DeviceKind::cuda, seat.device}, kPieceBytes, kPurpose),
        device_all({DeviceKind::cuda, seat.device}, kPieceBytes * static_cast<std::size_t>(seat.world_size), kPurpose),
        mine(kPieceBytes, kPurpose),
        all(kPieceBytes * static_cast<std::size_t>(seat.world_size), kPurpose) {
    std::memset(mine.data(), 0, kPieceBytes);
  }

  device::Stream stream{device::Priority::high};
  device::Event gathered;
  DeviceMemory device_mine, device_all;
  device::PinnedMemory mine, all;
};

Gather::Gather(ncclComm_t theirs, const Seat& seat)
    : seat_(seat), communicator_(split(theirs, seat)), message_(std::make_unique<Message>(seat)) {
  for (const std::size_t bytes : {kCardBytes, kPieceBytes}) {
    start(bytes);
    message_->stream.synchronize();
  }
}

// In good order the communicator is destroyed, for which NCCL waits for the other ranks.
Gather::~Gather() {
  if (stuck_) static_cast<void>(message_.release());
  const ncclComm_t communicator = communicator_.release();
  if (communicator == nullptr) return;
  try {
    const std::future<void> closed = begin([communicator, device = seat_.device] {
      const device::DeviceGuard guard(device);
      ncclCommDestroy(communicator);
    });
    static_cast<void>(ready(closed, Deadline(kCloseSeconds)));
  } catch (const std::exception&) {  // no thread to destroy it in: the process ends it
  }
}

std::vector<std::vector<std::byte>> Gather::operator()(std::span<const std::byte> mine, double timeout_seconds,
                                                       const Interrupted* interrupted) {
  throw_if_broken();
  const device::DeviceGuard guard(seat_.device);
  const RelaxedCapture relaxed;
  std::vector<std::vector<std::byte>> records(static_cast<std::size_t>(seat_.world_size));
  std::vector<std::size_t> sizes;

  const auto my_size = static_cast<std::int64_t>(mine.size());
  std::memcpy(message_->mine.data(), &my_size, sizeof my_size);
  const std::span<const std::byte> first = mine.first(std::min(mine.size(), kOnCard));
  std::copy(first.begin(), first.end(), message_->mine.data() + sizeof my_size);
  start(kCardBytes);
  finish(timeout_seconds, interrupted);
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    const std::byte* card = message_->all.data() + rank * kCardBytes;
    std::int64_t size = 0;
    std::memcpy(&size, card, sizeof size);
    sizes.push_back(static_cast<std::size_t>(size));
    records[rank].reserve(sizes[rank]);
    records[rank].assign(card + sizeof size, card + sizeof size + std::min(sizes[rank], kOnCard));
  }

  const std::size_t most = *std::max_element(sizes.begin(), sizes.end());
  for (std::size_t at = kOnCard; at < most; at += kPieceBytes) {
    if (at < mine.size()) {
      const std::span<const std::byte> piece = mine.subspan(at, std::min(kPieceBytes, mine.size() - at));
      std::copy(piece.begin(), piece.end(), message_->mine.data());
    }
    start(kPieceBytes);
    finish(timeout_seconds, interrupted);
    for (std::size_t rank = 0; rank < records.size(); ++rank) {
      if (at >= sizes[rank]) continue;
      const std::byte* piece = message_->all.data() + rank * kPieceBytes;
      records[rank].insert(records[rank].end(), piece, piece + std::min(kPieceBytes, sizes[rank] - at));
    }
  }
  return records;
}

void Gather::start(std::size_t bytes) {
  const Message& m = *message_;
  const device::StreamHandle stream = m.stream.handle();
  const std::size_t all = bytes * static_cast<std::size_t>(seat_.world_size);
  ORRERY_CUDA_CHECK(cudaMemcpyAsync(m.device_mine.data(), m.mine.data(), bytes, cudaMemcpyHostToDevice, stream));
  check(ncclAllGather(m.device_mine.data(), m.device_all.data(), bytes, ncclUint8, communicator_.get(), stream),
        "ncclAllGather");
  ORRERY_CUDA_CHECK(cudaMemcpyAsync(m.all.data(), m.device_all.data(), all, cudaMemcpyDeviceToHost, stream));
  m.gathered.record(stream);
}

void Gather::finish(double timeout_seconds, const Interrupted* interrupted) {
  const Deadline deadline(timeout_seconds, interrupted);
  const auto late = [&] {
    try {
      return deadline.passed();
    } catch (const Error& error) {  // interrupted: the others may never come
      break_down(error);
      throw;
    }
  };
  const auto spin_until = std::chrono::steady_clock::now() + kSpinning;
  while (!message_->gathered.reached()) {
    ncclResult_t state = ncclSuccess;
    ORRERY_NCCL_CHECK(ncclCommGetAsyncError(communicator_.get(), &state));
    if (state != ncclSuccess && state != ncclInProgress) {
      break_down(Error(ErrorCode::peer, concat("all_gather: NCCL: ", explain(state))));
    } else if (late()) {
      break_down(
          Error(ErrorCode::peer, concat("not every rank came to all_gather within ", seconds_text(timeout_seconds),
                                        " s; NCCL cannot tell which is missing")));
    }
    throw_if_broken();
    if (std::chrono::steady_clock::now() < spin_until) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

void Gather::break_down(const Error& why) noexcept {
  if (failure_) return;
  failure_ = why;
  const ncclComm_t communicator = communicator_.release();
  if (communicator == nullptr) return;
  try {
    const std::future<void> aborted = begin([communicator, device = seat_.device] {
      const device::DeviceGuard guard(device);
      ncclCommAbort(communicator);
    });
    stuck_ = !ready(aborted, Deadline(kAbortSeconds));
  } catch (const std::exception&) {  // no thread to abort it in; the caller is told all the same
    stuck_ = true;
  }
}

void Gather::throw_if_broken() const {
  if (failure_) throw Error(*failure_);
}

}  // namespace orrery::nccl
