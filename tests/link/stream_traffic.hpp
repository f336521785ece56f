// Bytes on a device, and a session played from one stream, as a backend plays it.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "device/stream.hpp"
#include "kernels/cuda/copy_region.hpp"
#include "link/stream_link.hpp"
#include "link/traffic.hpp"
#include "orrery/device.hpp"

namespace orrery::test {

class DeviceBytes {
 public:
  DeviceBytes(Device device, std::int64_t bytes)
      : device_(device), size_(bytes), memory_(device, static_cast<std::size_t>(bytes), "test bytes") {
    put(Bytes(static_cast<std::size_t>(bytes)));
  }
  DeviceBytes(Device device, const Bytes& bytes) : DeviceBytes(device, static_cast<std::int64_t>(bytes.size())) {
    put(bytes);
  }

  void put(const Bytes& bytes) {
    copy_bytes(memory_.data(), bytes.data(), bytes.size());
    orrery::synchronize(device_);  // the streams of links do not wait for the default one
  }
  Bytes get() const {
    Bytes bytes(static_cast<std::size_t>(size_));
    copy_bytes(bytes.data(), memory_.data(), bytes.size());
    return bytes;
  }
  std::byte* data() const { return memory_.data(); }
  std::int64_t size() const { return size_; }
  Region whole() const { return {.data = memory_.data(), .run_bytes = size_}; }
  // The same bytes as rows of `row` bytes, each behind a gap of as many; size() is twice that of the message.
  Region rows(std::int64_t row) const {
    return {.data = memory_.data(), .counts = {1, 1, size_ / (2 * row)}, .strides = {0, 0, 2 * row}, .run_bytes = row};
  }

 private:
  Device device_;
  std::int64_t size_;
  DeviceMemory memory_;
};

// Puts a copy of all bytes on the stream.
inline void device_copy(DeviceBytes& into, const DeviceBytes& from, device::StreamHandle stream) {
  kernels::cuda::copy_region(into.whole(), from.whole(), stream);
}

// The stream stands for computation: an exchange starts behind what is on it, and it waits for what is joined.
class Player {
 public:
  Player(World& world, Device device, const std::vector<LinkExchange>& exchanges)
      : guard_(device.index),
        exchanges_(static_cast<int>(exchanges.size())),
        ready_(exchanges.size()),
        link_(world.stream_link(device, lanes_of(exchanges))),
        staging_(device, link_.staging_bytes(exchanges), "staging"),
        session_(link_.prepare(exchanges, staging_.data())) {}

  void begin(const RunName& run = {}) {
    origin_.record(stream_.handle());
    session_->begin_run(run);
  }
  void start(int exchange) {
    ready_[exchange].record(stream_.handle());
    session_->start(exchange, ready_[exchange].handle());
  }
  void join(int exchange) { session_->join(exchange, stream_.handle(), kWait); }
  void end() { session_->end_run(); }
  void synchronize() { stream_.synchronize(); }

  void run_each() {
    begin();
    for (int i = 0; i < exchanges_; ++i) {
      start(i);
      join(i);
    }
    end();
    synchronize();
  }
  void run_all() {
    begin();
    for (int i = 0; i < exchanges_; ++i) start(i);
    for (int i = 0; i < exchanges_; ++i) join(i);
    end();
    synchronize();
  }

  StreamSession& session() { return *session_; }
  device::StreamHandle stream() const { return stream_.handle(); }
  ExchangeTimes times(int exchange) const { return session_->times(exchange, origin_.handle()); }

 private:
  static int lanes_of(const std::vector<LinkExchange>& exchanges) {
    int lanes = 1;
    for (const LinkExchange& exchange : exchanges) lanes = std::max(lanes, exchange.lane + 1);
    return lanes;
  }

  device::DeviceGuard guard_;
  int exchanges_;
  device::Stream stream_;
  device::Event origin_{device::Timing::on};
  std::vector<device::Event> ready_;
  StreamLink& link_;
  DeviceMemory staging_;
  std::unique_ptr<StreamSession> session_;
};

}  // namespace orrery::test
