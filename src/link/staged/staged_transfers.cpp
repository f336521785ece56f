#include "link/staged/staged_transfers.hpp"

#include <algorithm>
#include <chrono>

#include "core/alignment.hpp"
#include "device/check.hpp"
#include "kernels/cuda/copy_region.hpp"
#include "link/deadline.hpp"
#include "link/region.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr std::chrono::milliseconds kLook(10);

std::size_t pinned_bytes(const Region& region) {
  return aligned(static_cast<std::size_t>(region.bytes()), kDeviceAlignment);
}

std::size_t pinned_bytes(const std::vector<LinkExchange>& exchanges) {
  std::size_t bytes = 0;
  for (const LinkExchange& exchange : exchanges) {
    for (const Message& message : exchange.sends) bytes += pinned_bytes(message.region);
    for (const Message& message : exchange.receives) bytes += pinned_bytes(message.region);
  }
  return bytes;
}

// One side of it is pinned, which a kernel on the device reaches as well as its own memory.
void copy(const Region& into, const Region& from, device::StreamHandle stream) {
  if (into.bytes() == 0) return;
  if (!into.contiguous() || !from.contiguous()) return kernels::cuda::copy_region(into, from, stream);
  ORRERY_CUDA_CHECK(
      cudaMemcpyAsync(into.data, from.data, static_cast<std::size_t>(from.bytes()), cudaMemcpyDefault, stream));
}

}  // namespace

StagedTransfers::StagedTransfers(const StagingStreams& streams, Link& host_link,
                                 const std::vector<LinkExchange>& exchanges)
    : streams_(streams), pinned_(pinned_bytes(exchanges), "messages between devices"), exchanges_(exchanges.size()) {
  std::byte* place = pinned_.data();
  std::vector<LinkExchange> hosts(exchanges.size());
  for (std::size_t index = 0; index < exchanges.size(); ++index) {
    Exchange& mine = exchanges_[index];
    mine.lane = hosts[index].lane = exchanges[index].lane;
    mine.after = exchanges[index].after;
    const auto add = [&](const std::vector<Message>& asked, std::vector<Copy>& copies, std::vector<Message>& messages) {
      for (const Message& message : asked) {
        copies.push_back({message.peer, simplified(message.region), place});
        messages.push_back({message.peer, one_run(place, message.region.bytes())});
        place += pinned_bytes(message.region);
      }
    };
    add(exchanges[index].sends, mine.sends, hosts[index].sends);
    add(exchanges[index].receives, mine.receives, hosts[index].receives);
  }
  host_ = host_link.prepare(std::move(hosts));
}

void StagedTransfers::begin_run(const RunName& run) {
  host_->begin_run(run);
  down_ = sent_ = all_landed_ = started_ = 0;
  for (Exchange& exchange : exchanges_) {
    exchange.sent_at = -1;
    exchange.landed = false;
  }
}

int StagedTransfers::started() const {
  const std::lock_guard lock(mutex_);
  return started_;
}

void StagedTransfers::start(device::EventHandle ready) {
  const std::lock_guard lock(mutex_);
  exchanges_[started_++].ready = ready;
}

void StagedTransfers::throw_if_failed() const {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
}

void StagedTransfers::wait_until_landed(int exchange, double timeout_seconds, const Interrupted* interrupted) {
  constexpr double kForEver = 1e9;  // how long an exchange has been with the host link is overdue()'s to say
  const Deadline deadline(kForEver, interrupted);
  std::unique_lock lock(mutex_);
  while (!exchanges_[exchange].landed) {
    if (failure_) std::rethrow_exception(failure_);
    static_cast<void>(deadline.passed());
    const std::vector<Outstanding> late = overdue(timeout_seconds);
    if (!late.empty()) {
      failure_ = std::make_exception_ptr(Error(ErrorCode::peer, describe(late, timeout_seconds)));
    } else {
      changed_.wait_for(lock, kLook);
    }
  }
}

std::vector<Outstanding> StagedTransfers::overdue(double timeout_seconds) const {
  const double now = steady_seconds();
  std::vector<Outstanding> list;
  for (const Exchange& one : exchanges_) {
    if (one.sent_at < 0 || one.landed || now - one.sent_at < timeout_seconds) continue;
    // The host link does not tell what of an exchange has moved.
    for (const bool receive : {true, false}) {
      for (const Copy& each : receive ? one.receives : one.sends) {
        add_outstanding(list, {receive, each.peer, one.lane, each.device.bytes(), each.device.bytes()});
      }
    }
  }
  return list;
}

ProgressWork::State StagedTransfers::poll() {
  State state;
  const int started = this->started();
  while (down_ < started && may_go_down(exchanges_[down_])) {
    go_down(exchanges_[down_++]);
    ++state.events;
  }
  // The last run's bytes must be up before the peer's may come in their place.
  while (sent_ < down_ && exchanges_[sent_].below.reached() && exchanges_[sent_].ended.reached()) {
    hand_over(sent_++);
    ++state.events;
  }
  for (int index = all_landed_; index < sent_; ++index) {
    Exchange& exchange = exchanges_[index];
    if (exchange.landed || !host_->done(index)) continue;
    come_up(exchange);
    ++state.events;
  }
  while (all_landed_ < sent_ && exchanges_[all_landed_].landed) ++all_landed_;
  state.in_flight = all_landed_ < started;
  return state;
}

void StagedTransfers::fail(std::exception_ptr error) noexcept {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
  changed_.notify_all();
}

bool StagedTransfers::may_go_down(const Exchange& exchange) const {
  return std::all_of(exchange.after.begin(), exchange.after.end(),
                     [this](int earlier) { return exchanges_[earlier].landed; });
}

void StagedTransfers::go_down(Exchange& exchange) {
  const device::DeviceGuard guard(streams_.device);
  const device::StreamHandle stream = streams_.down.handle();
  device::wait(stream, exchange.ready);
  for (const int earlier : exchange.after) device::wait(stream, exchanges_[earlier].ended.handle());
  exchange.began.record(stream);
  for (const Copy& send : exchange.sends) copy(one_run(send.host, send.device.bytes()), send.device, stream);
  exchange.below.record(stream);
}

void StagedTransfers::hand_over(int exchange) {
  {
    const std::lock_guard lock(mutex_);
    exchanges_[exchange].sent_at = steady_seconds();
  }
  host_->start(exchange);
}

void StagedTransfers::come_up(Exchange& exchange) {
  const device::DeviceGuard guard(streams_.device);
  const device::StreamHandle stream = streams_.up.handle();
  for (const Copy& receive : exchange.receives)
    copy(receive.device, one_run(receive.host, receive.device.bytes()), stream);
  exchange.ended.record(stream);
  const std::lock_guard lock(mutex_);
  exchange.landed = true;
  changed_.notify_all();
}

}  // namespace orrery
