#include "link/inprocess/device_link.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "device/check.hpp"
#include "device/stream.hpp"
#include "kernels/cuda/copy_region.hpp"
#include "link/deadline.hpp"
#include "link/region.hpp"

namespace orrery {
namespace {

using device::DeviceGuard;
using device::Event;
using device::EventHandle;
using device::Stream;
using device::StreamHandle;
using device::Timing;

// Of an exchange, `began` says that its memory may be touched, and `ended` that all of it has moved, both ways; between
// them lie, on the receiver's lane, the copies of what it receives.
class DeviceSession final : public StreamSession, private Carrier {
 public:
  DeviceSession(Hub& hub, Channels& channels, int rank, int device, const std::vector<LinkExchange>& exchanges)
      : device_(device),
        interrupted_(hub.interrupted()),
        exchanges_(exchanges.size()),
        rendezvous_(hub, channels, rank, exchanges, *this) {
    for (std::size_t i = 0; i < exchanges.size(); ++i) {
      Exchange& mine = exchanges_[i];
      mine.lane = lane(exchanges[i].lane);
      mine.after = exchanges[i].after;
      mine.copied.resize(exchanges[i].sends.size() + exchanges[i].receives.size());
      for (std::size_t r = exchanges[i].sends.size(); r < mine.copied.size(); ++r) {
        mine.copied[r] = std::make_shared<const Event>();
      }
    }
  }

  void begin_run(const RunName& run) override { rendezvous_.begin_run(run); }

  void start(int exchange, EventHandle ready) override {
    exchanges_[exchange].ready = ready;
    rendezvous_.start(exchange);
  }

  void join(int exchange, StreamHandle stream, double timeout_seconds) override {
    rendezvous_.wait(exchange, timeout_seconds);
    device::wait(stream, exchanges_[exchange].ended.handle());
  }

  void end_run() noexcept override { rendezvous_.end_run(); }

  void wait(int exchange, double timeout_seconds) override {
    constexpr std::chrono::microseconds kPause(20);
    constexpr double kForEver = 1e9;
    const Exchange& mine = exchanges_[exchange];
    const Deadline forever(kForEver, interrupted_);
    std::optional<Deadline> deadline;
    while (!mine.ended.reached()) {
      rendezvous_.done(exchange);  // throws when the world has failed
      static_cast<void>(forever.passed());
      if (!deadline && mine.began.reached()) deadline.emplace(timeout_seconds);
      if (deadline && deadline->passed()) {
        fail(ErrorCode::peer, describe(rendezvous_.messages(exchange, false), timeout_seconds));
      }
      std::this_thread::sleep_for(kPause);
    }
  }

  ExchangeTimes times(int exchange, EventHandle origin) const override {
    const Exchange& mine = exchanges_[exchange];
    return {mine.began.seconds_since(origin), mine.ended.seconds_since(origin)};
  }

 private:
  struct Exchange {
    StreamHandle lane = nullptr;
    std::vector<int> after;
    EventHandle ready = nullptr;
    Event began{Timing::on}, ended{Timing::on};
    // By the ticket's index. A message has one event, the receiver's; the sender keeps it from when the message is
    // carried, for its exchange may end when the receiver has long done with its session.
    std::vector<std::shared_ptr<const Event>> copied;
  };
  struct Lane {
    int number;
    Stream stream{device::Priority::high};
  };

  StreamHandle lane(int number) {
    for (const Lane& each : lanes_) {
      if (each.number == number) return each.stream.handle();
    }
    return lanes_.emplace_back(Lane{number}).stream.handle();
  }

  std::shared_ptr<const Event>& copied(const Ticket& ticket) {
    return exchanges_[ticket.exchange].copied[ticket.index];
  }
  static DeviceSession& of(const Ticket& ticket) { return static_cast<DeviceSession&>(ticket.session->carrier()); }

  void begin(int exchange) override {
    const Exchange& mine = exchanges_[exchange];
    device::wait(mine.lane, mine.ready);
    for (int earlier : mine.after) device::wait(mine.lane, exchanges_[earlier].ended.handle());
    mine.began.record(mine.lane);
  }

  void carry(const Ticket& receive, const Ticket& send) override {
    const DeviceGuard guard(device_);
    const StreamHandle lane = exchanges_[receive.exchange].lane;
    device::wait(lane, of(send).exchanges_[send.exchange].began.handle());
    kernels::cuda::copy_region(receive.region, send.region, lane);
    copied(receive)->record(lane);
    of(send).copied(send) = copied(receive);
  }

  void end(int exchange) override {
    const Exchange& mine = exchanges_[exchange];
    for (const Ticket& ticket : rendezvous_.tickets(exchange)) {
      const auto& event = copied(ticket);  // none when carrying failed
      if (!ticket.receive && event) device::wait(mine.lane, event->handle());
    }
    mine.ended.record(mine.lane);
  }

  int device_;
  const Interrupted* interrupted_;
  std::vector<Lane> lanes_;
  std::vector<Exchange> exchanges_;
  Rendezvous rendezvous_;
};

class InprocessDeviceLink final : public StreamLink {
 public:
  InprocessDeviceLink(Hub& hub, Channels& channels, int rank, int device)
      : hub_(hub), channels_(channels), rank_(rank), device_(device) {}

  const char* name() const override { return "inprocess"; }
  const char* refuses_capture() const override {
    return hub_.world_size() == 1 ? nullptr
                                  : "ranks that are threads cannot be captured into a CUDA graph, which one thread "
                                    "draws; start them as processes, linked by NCCL";
  }
  std::size_t staging_bytes(const std::vector<LinkExchange>&) const override { return 0; }
  std::unique_ptr<StreamSession> prepare(std::vector<LinkExchange> exchanges, std::byte*) override {
    check_exchanges(exchanges, rank_, hub_.world_size());
    const DeviceGuard guard(device_);
    return std::make_unique<DeviceSession>(hub_, channels_, rank_, device_, exchanges);
  }

 private:
  Hub& hub_;
  Channels& channels_;
  int rank_, device_;
};

// Lets this rank's device reach the memory of another's.
void reach(int mine, int other) {
  if (mine == other) return;
  int reachable = 0;
  ORRERY_CUDA_CHECK(cudaDeviceCanAccessPeer(&reachable, mine, other));
  if (reachable == 0) {
    refuse("CUDA devices ", mine, " and ", other,
           " cannot reach each other's memory; start the ranks as processes, with mpirun");
  }
  const DeviceGuard guard(mine);
  const cudaError_t error = cudaDeviceEnablePeerAccess(other, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return;
  }
  ORRERY_CUDA_CHECK(error);
}

}  // namespace

std::unique_ptr<StreamLink> open_inprocess_device_link(Hub& hub, Channels& channels, int rank, Device device) {
  for (const auto& bytes : hub.all_gather(rank, std::as_bytes(std::span(&device.index, 1)))) {
    int other = 0;
    std::memcpy(&other, bytes.data(), sizeof other);
    reach(device.index, other);
  }
  return std::make_unique<InprocessDeviceLink>(hub, channels, rank, device.index);
}

}  // namespace orrery
