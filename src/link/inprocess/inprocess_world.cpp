// A world whose ranks are threads of this process: every distributed run can be had, and debugged, on one machine.
#include <new>
#include <system_error>
#include <thread>

#include "link/inprocess/inprocess_link.hpp"
#include "orrery/world.hpp"

namespace orrery {
namespace {

class InprocessWorld final : public World {
 public:
  InprocessWorld(Hub& hub, Channels& channels, const Topology& topology, int rank)
      : hub_(hub), topology_(topology), rank_(rank), link_(hub, channels, rank) {}

  int rank() const override { return rank_; }
  const Topology& topology() const override { return topology_; }
  double timeout_seconds() const override { return hub_.timeout_seconds(); }
  std::string_view link_name() const override { return "inprocess"; }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    return hub_.all_gather(rank_, mine);
  }
  Link& link() override { return link_; }
  void abort(ErrorCode code, std::string_view message) noexcept override {
    hub_.fail(rank_, code, std::string(message));
  }

 private:
  Hub& hub_;
  const Topology& topology_;
  int rank_;
  InprocessLink link_;
};

void run_rank(Hub& hub, Channels& channels, const Topology& topology, int rank,
              const std::function<void(World&)>& body) {
  try {
    {
      InprocessWorld world(hub, channels, topology, rank);
      body(world);
    }
    hub.leave(rank);
  } catch (const Error& error) {
    hub.fail(rank, error.code(), error.what(), std::current_exception());
  } catch (const std::bad_alloc&) {
    hub.fail(rank, ErrorCode::resource, "out of memory", std::current_exception());
  } catch (const std::exception& error) {
    hub.fail(rank, ErrorCode::bug, error.what(), std::current_exception());
  } catch (...) {
    hub.fail(rank, ErrorCode::bug, "an exception of unknown type", std::current_exception());
  }
}

}  // namespace

void run_in_process(int world_size, const WorldOptions& options, const std::function<void(World&)>& body) {
  if (world_size < 1) refuse("a world of ", world_size, " ranks");
  if (!(options.timeout_seconds > 0)) refuse("a timeout of ", options.timeout_seconds, " seconds");
  const Topology topology = Topology::single_node(world_size);
  Hub hub(world_size, options.timeout_seconds);
  Channels channels;
  {
    std::vector<std::jthread> ranks;
    ranks.reserve(world_size);
    for (int rank = 0; rank < world_size; ++rank) {
      try {
        ranks.emplace_back([&, rank] { run_rank(hub, channels, topology, rank, body); });
      } catch (const std::system_error& error) {
        hub.fail(rank, ErrorCode::resource,
                 concat("cannot start the thread of rank ", rank, " of ", world_size, ": ", error.what()));
        break;
      }
    }
  }
  hub.rethrow_failure();
}

}  // namespace orrery
