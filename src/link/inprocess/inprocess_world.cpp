// A world whose ranks are threads of this process: every distributed run can be had, and debugged, on one machine.
#include <atomic>
#include <system_error>
#include <thread>

#include "link/inprocess/device_link.hpp"
#include "link/inprocess/inprocess_link.hpp"
#include "orrery/world.hpp"

namespace orrery {

// What the ranks share, for as long as one of them is there.
struct LocalWorlds::Shared {
  Shared(int world_size, const WorldOptions& options)
      : topology(Topology::single_node(world_size)),
        hub(world_size, options.timeout_seconds, options.interrupted),
        opened(world_size) {}

  Topology topology;
  Hub hub;
  Channels host, device;  // the latter of messages between devices
  std::vector<std::atomic_flag> opened;
};

namespace {

class InprocessWorld final : public World {
 public:
  // `owner` keeps the rest alive.
  InprocessWorld(std::shared_ptr<void> owner, Hub& hub, Channels& host, Channels& device, const Topology& topology,
                 int rank)
      : owner_(std::move(owner)),
        hub_(hub),
        device_(device),
        topology_(topology),
        rank_(rank),
        link_(hub, host, rank) {}
  ~InprocessWorld() override {
    stream_link_.reset();
    hub_.leave(rank_);
  }

  int rank() const override { return rank_; }
  const Topology& topology() const override { return topology_; }
  double timeout_seconds() const override { return hub_.timeout_seconds(); }
  std::string_view link_name() const override { return "inprocess"; }
  Records all_gather(std::span<const std::byte> mine) override { return hub_.all_gather(rank_, mine); }
  void all_reduce(std::span<double> values, Reduction reduction) override { hub_.all_reduce(rank_, values, reduction); }
  Link& link() override { return link_; }
  StreamLink& stream_link(Device device, int /* lanes: made as exchanges name them */) override {
    if (!stream_link_) {
      stream_link_ = open_inprocess_device_link(hub_, device_, rank_, device);
      stream_device_ = device;
    }
    if (device != stream_device_) {
      refuse("rank ", rank_, " asks for a link of device ", device.index, "; it has one of device ",
             stream_device_.index);
    }
    return *stream_link_;
  }
  void abort(ErrorCode code, std::string_view message) noexcept override {
    hub_.fail(rank_, code, std::string(message));
  }

 private:
  std::shared_ptr<void> owner_;
  Hub& hub_;
  Channels& device_;
  const Topology& topology_;
  int rank_;
  InprocessLink link_;
  std::unique_ptr<StreamLink> stream_link_;
  Device stream_device_;
};

}  // namespace

LocalWorlds::LocalWorlds(int world_size, const WorldOptions& options) {
  if (world_size < 1) refuse("a world of ", world_size, " ranks");
  if (!(options.timeout_seconds > 0)) refuse("a timeout of ", options.timeout_seconds, " seconds");
  shared_ = std::make_shared<Shared>(world_size, options);
}

int LocalWorlds::world_size() const {
  return shared_->hub.world_size();
}

std::unique_ptr<World> LocalWorlds::open(int rank) {
  if (rank < 0 || rank >= world_size()) refuse("rank ", rank, " of a world of ", world_size(), " ranks");
  Shared& shared = *shared_;
  if (shared.opened[rank].test_and_set()) refuse("rank ", rank, " has been opened before");
  return std::make_unique<InprocessWorld>(shared_, shared.hub, shared.host, shared.device, shared.topology, rank);
}

// Fails the world with the error that the body throws, before the rank leaves it: the error is the cause, and that the
// rank has left a consequence.
void LocalWorlds::run_rank(int rank, const std::function<void(World&)>& body) {
  Hub& hub = shared_->hub;
  std::unique_ptr<World> world;
  try {
    world = open(rank);
    body(*world);
  } catch (...) {
    const Error error = current_error();
    hub.fail(rank, error.code(), error.what(), std::current_exception());
  }
}

void LocalWorlds::run(const std::function<void(World&)>& body) {
  {
    std::vector<std::jthread> ranks;
    ranks.reserve(world_size());
    for (int rank = 0; rank < world_size(); ++rank) {
      try {
        ranks.emplace_back([&, rank] { run_rank(rank, body); });
      } catch (const std::system_error& error) {
        shared_->hub.fail(rank, ErrorCode::resource,
                          concat("cannot start the thread of rank ", rank, " of ", world_size(), ": ", error.what()));
        break;
      }
    }
  }
  shared_->hub.rethrow_failure();
}

void run_in_process(int world_size, const WorldOptions& options, const std::function<void(World&)>& body) {
  LocalWorlds(world_size, options).run(body);
}

}  // namespace orrery
