// What the handles of orrery.h point to. A caller may destroy them in any order, as garbage collectors do: an attention
// keeps the rank that it runs on, and a rank what it shares with the others.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "c_api/calls.hpp"
#include "orrery/attention.hpp"
#include "orrery/plan.hpp"
#include "orrery/world.hpp"

namespace orrery::c_api {

// The message of the last failed call. Keeping it must not fail itself.
class LastError {
 public:
  void set(const char* text) noexcept {
    try {
      text_ = text;
      shown_ = text_.c_str();
    } catch (const std::bad_alloc&) {
      shown_ = "out of memory";
    }
  }
  const char* get() const noexcept { return shown_; }

 private:
  std::string text_;
  const char* shown_ = "";
};

// One rank.
struct Rank {
  explicit Rank(std::unique_ptr<World> opened) : world(std::move(opened)) {}

  std::unique_ptr<World> world;
  // Of the world, and once it is known where the ranks compute, of their devices.
  Topology topology = world->topology();
  Costs costs = Costs::cuda();
  LastError error;
};

struct ToRank {
  Rank& rank;
  void operator()(const char* text) const noexcept { rank.error.set(text); }
};

}  // namespace orrery::c_api

// NOLINTBEGIN(readability-identifier-naming): these are names of C

struct orrery_local {
  orrery::LocalWorlds worlds;
};

struct orrery_context {
  std::shared_ptr<orrery::c_api::Rank> rank;
};

struct orrery_plan {
  explicit orrery_plan(orrery::Plan made) : plan(std::move(made)), text(plan.text()) {}

  // Making them makes the programs of a rank, and callers ask for one port after another: those asked for last are
  // kept, for any number of threads.
  std::vector<orrery::Port> ports(int rank) const {
    const std::lock_guard lock(mutex_);
    if (ports_of_ != rank) ports_ = plan.ports(rank);
    ports_of_ = rank;
    return ports_;
  }

  const orrery::Plan plan;
  const std::string text;

 private:
  mutable std::mutex mutex_;
  mutable int ports_of_ = -1;
  mutable std::vector<orrery::Port> ports_;
};

struct orrery_attention {
  std::shared_ptr<orrery::c_api::Rank> rank;  // outlives the rest
  orrery::Device device;
  orrery::Attention attention;
  std::optional<orrery::AttentionTensors> bound;
};

struct orrery_memory {
  orrery::DeviceMemory memory;
};

// NOLINTEND(readability-identifier-naming)
