// The world of the ranks of a transport: records, the link, and devices behind it.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "link/stream_link.hpp"
#include "link/transport/gather.hpp"
#include "link/transport/transport_link.hpp"
#include "orrery/transport.hpp"

namespace orrery {

class TransportWorld : public World {
 public:
  TransportWorld(std::unique_ptr<Transport> transport, const WorldOptions& options,
                 std::unique_ptr<StreamTransport> streams = nullptr);
  ~TransportWorld() override;

  int rank() const override { return transport_->rank(); }
  const Topology& topology() const override { return topology_; }
  double timeout_seconds() const override { return options_.timeout_seconds; }
  std::string_view link_name() const override { return name_; }
  Link& link() override { return link_; }
  StreamLink& stream_link(Device device, int lanes) override;
  Records all_gather(std::span<const std::byte> mine) override;
  void all_reduce(std::span<double> values, Reduction reduction) override;
  void abort(ErrorCode code, std::string_view message) noexcept override;

 protected:
  Transport& transport() { return *transport_; }
  void close_stream_link() { stream_link_.reset(); }
  // False when messages may still be under way, or an error is what closes the world.
  bool in_good_order() const;

 private:
  const WorldOptions options_;
  const int exceptions_at_open_ = std::uncaught_exceptions();
  std::unique_ptr<Transport> transport_;
  const std::string name_;
  Topology topology_;
  Gather gather_;
  TransportLink link_;
  std::unique_ptr<StreamTransport> streams_;  // until the link between devices has it
  std::unique_ptr<StreamLink> stream_link_;
  Device stream_device_;
};

// Throws ErrorCode::invalid for a timeout that is none, and for a device link other than auto, nccl and this one.
void check_options(const WorldOptions& options, std::string_view transport);

}  // namespace orrery
