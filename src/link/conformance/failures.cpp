// What a rank must find out when another goes wrong. Every rank first trades a message with the culprit, which then
// does its misdeed; the others trade again and look at the error that they get.
#include <chrono>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "link/conformance/cases.hpp"
#include "link/conformance/traffic.hpp"
#include "link/deadline.hpp"

namespace orrery::conformance {
namespace {

constexpr int kCulprit = 1;
constexpr std::int64_t kBytes = 1 << 20;
constexpr double kSlack = 5;     // seconds by which a wait may outlast its deadline, on a busy machine
constexpr double kStay = 0.5;    // seconds that a rank stays on, so that its own end is not what the others see
constexpr double kPatience = 2;  // the same of all_gather, in which rank 0 may speak before the others

void pause(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Both ways, between the culprit and every other rank.
class Trade {
 public:
  explicit Trade(World& world) : timeout_seconds_(world.timeout_seconds()) {
    LinkExchange exchange;
    for (int peer = 0; peer < world.world_size(); ++peer) {
      if (peer == world.rank() || (peer != kCulprit && world.rank() != kCulprit)) continue;
      exchange.sends.push_back({peer, whole(blocks_.emplace_back(kBytes))});
      exchange.receives.push_back({peer, whole(blocks_.emplace_back(kBytes))});
    }
    session_ = world.link().prepare({exchange});
  }
  void run(const RunName& name) {
    session_->begin_run(name);
    session_->start(0);
    session_->wait(0, timeout_seconds_);
    session_->end_run();
  }

 private:
  double timeout_seconds_;
  std::list<Bytes> blocks_;
  std::unique_ptr<LinkSession> session_;
};

// `wait` must end with ErrorCode::peer and a message that says `part`, at the latest after so many seconds.
template <typename Wait>
void expect_peer_error(const Wait& wait, const std::string& part, double latest) {
  const double before = steady_seconds();
  const Error met = error_of(wait);
  const double seconds = steady_seconds() - before;
  expect(met.code() == ErrorCode::peer, "an error of a peer, not: ", met.what());
  expect(std::string(met.what()).find(part) != std::string::npos, part, ", not: ", met.what());
  expect(seconds <= latest, "an end within ", latest, " s, not after ", seconds, " s: ", met.what());
}

// What the culprit does instead of the second trade, and what the others must get from it.
template <typename Misdeed>
void trade_twice(World& world, const std::string& part, double latest, const Misdeed& misdeed) {
  if (world.world_size() == 1) return;
  Trade trade(world);
  trade.run({7, 0, 0});
  if (world.rank() == kCulprit) return misdeed(trade);
  expect_peer_error([&] { trade.run({7, 1, 0}); }, part, latest);
  pause(kStay);
}

}  // namespace

void silent(World& world) {
  const double timeout = world.timeout_seconds();
  trade_twice(world, "rank 1", timeout + kSlack, [&](Trade&) { pause(timeout + kStay); });
}

// Rank 0, through which records may pass, must know who it was; the others need not.
void absent(World& world) {
  if (world.world_size() == 1) return;
  const double timeout = world.timeout_seconds();
  world.barrier();
  if (world.rank() == kCulprit) return pause(timeout + kPatience);
  expect_peer_error([&] { world.barrier(); }, world.rank() == 0 ? "rank 1" : "all_gather", timeout + kSlack);
  pause(kPatience);
}

void aborted(World& world) {
  const double timeout = world.timeout_seconds();
  trade_twice(world, "", 0.75 * timeout, [&](Trade&) {
    pause(0.25 * timeout);  // the others wait by now
    world.abort(ErrorCode::verification, "aborted on purpose");
    pause(timeout);  // its end is not what wakes them
  });
}

void gone(World& world) {
  trade_twice(world, "rank 1", world.timeout_seconds() + kSlack, [](Trade&) {});
}

void in_another_run(World& world) {
  const double latest = world.timeout_seconds() + kSlack;
  const std::string part = "the ranks are not at the same call";
  trade_twice(world, part, latest, [&](Trade& trade) {
    expect_peer_error([&] { trade.run({7, 1, 1}); }, part, latest);
    pause(kStay);
  });
}

}  // namespace orrery::conformance
