// NCCL as a transport of streams: a communicator and a stream a lane (lanes.hpp). NCCL allows one thread at a time on a
// communicator, sets no bound on its calls, and ends its kernels only when a communicator is aborted.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "link/deadline.hpp"
#include "link/nccl/lanes.hpp"
#include "orrery/transport.hpp"

namespace orrery::nccl {

class NcclStreams final : public StreamTransport {
 public:
  NcclStreams(std::vector<Lane> lanes, const Seat& seat, double timeout_seconds, const Interrupted* interrupted)
      : seat_(seat), timeout_seconds_(timeout_seconds), interrupted_(interrupted), lanes_(std::move(lanes)) {}
  ~NcclStreams() override;

  int rank() const override { return seat_.rank; }
  int world_size() const override { return seat_.world_size; }
  const char* name() const override { return "nccl"; }
  Device device() const override { return {DeviceKind::cuda, seat_.device}; }
  int lanes() const override { return static_cast<int>(lanes_.size()); }
  void open_lanes(int lanes) override;
  void* stream(int lane) const override { return lanes_[static_cast<std::size_t>(lane)].stream.handle(); }
  void enqueue(int lane, std::span<const StreamMessage> messages) override;
  std::string complaint() override;
  void abort() noexcept override;

 private:
  void abort_lanes();
  void close();
  void throw_if_aborted() const;

  const Seat seat_;
  const double timeout_seconds_;
  const Interrupted* const interrupted_;
  std::vector<Lane> lanes_;
  std::timed_mutex nccl_;  // held by who calls NCCL on a communicator, or adds one
  std::atomic<bool> aborted_ = false;
};

}  // namespace orrery::nccl
