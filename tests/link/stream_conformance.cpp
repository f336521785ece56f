#include "link/stream_conformance.hpp"

#include <algorithm>

#include "link/stream_traffic.hpp"

namespace orrery::test {
namespace {

constexpr int kLanes = 2;
constexpr std::int64_t kRow = 240;

std::int64_t at(const Region& region, std::int64_t index) {  // the offset of a message's byte
  const std::int64_t run = index / region.run_bytes, inner = run % region.counts[2];
  const std::int64_t middle = run / region.counts[2] % region.counts[1],
                     outer = run / region.counts[2] / region.counts[1];
  return outer * region.strides[0] + middle * region.strides[1] + inner * region.strides[2] + index % region.run_bytes;
}

void fill(DeviceBytes& bytes, const Region& region, int owner, int series) {
  Bytes all = bytes.get();
  for (std::int64_t i = 0; i < region.bytes(); ++i) all[at(region, i)] = byte_of(owner, series, i);
  bytes.put(all);
}

void expect_message(const DeviceBytes& bytes, const Region& region, int owner, int series) {
  const Bytes all = bytes.get();
  for (std::int64_t i = 0; i < region.bytes(); ++i) {
    expect(all[at(region, i)] == byte_of(owner, series, i), "byte ", i, " of ", region.bytes(), " of rank ", owner,
           ", series ", series);
  }
}

// A block a lane travels around the ring; slots take turns, so step k sends what step k-1 received. On lane 0 the rows
// of a block lie together, on lane 1 they do not.
struct DeviceRings {
  DeviceRings(World& world_, Device device, bool chained) : world(world_), steps(world_.world_size() - 1) {
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int slot = 0; slot < 2; ++slot) slots[lane].emplace_back(device, 2 * kRow * (lane == 0 ? 1024 : 31));
    }
    for (int step = 0; step < steps; ++step) {
      for (int lane = 0; lane < kLanes; ++lane) {
        LinkExchange exchange;
        exchange.lane = lane;
        exchange.sends.push_back({right_of(world), region(lane, step % 2)});
        exchange.receives.push_back({left_of(world), region(lane, (step + 1) % 2)});
        if (chained && step > 0) exchange.after.push_back((step - 1) * kLanes + lane);
        exchanges.push_back(exchange);
      }
    }
    player = std::make_unique<Player>(world, device, exchanges);
  }

  Region region(int lane, int slot) const { return lane == 0 ? slots[0][slot].whole() : slots[1][slot].rows(kRow); }
  void fill_all(int run) {
    for (int lane = 0; lane < kLanes; ++lane) fill(slots[lane][0], region(lane, 0), world.rank(), lane + 10 * run);
  }
  void expect_all(int run) const {
    if (steps == 0) return;
    for (int lane = 0; lane < kLanes; ++lane) {
      expect_message(slots[lane][steps % 2], region(lane, steps % 2), right_of(world), lane + 10 * run);
    }
  }

  World& world;
  int steps;
  std::vector<DeviceBytes> slots[kLanes];
  std::vector<LinkExchange> exchanges;
  std::unique_ptr<Player> player;
};

}  // namespace

void stream_rings(World& world, Device device) {
  DeviceRings rings(world, device, false);
  for (int run = 0; run < 3; ++run) {
    rings.fill_all(run);
    rings.player->run_each();
    rings.expect_all(run);
  }
}

void stream_chained_rings(World& world, Device device) {
  DeviceRings rings(world, device, true);
  for (int run = 0; run < 3; ++run) {
    rings.fill_all(run);
    rings.player->run_all();
    rings.expect_all(run);
  }
}

void stream_relays(World& world, Device device) {
  if (world.world_size() == 1) return;
  DeviceBytes mine(device, bytes_of(world.rank(), 1, 300001)), passed(device, 300001), got(device, 300001);
  std::vector<LinkExchange> exchanges(2);
  exchanges[0] = {0, {{right_of(world), mine.whole()}}, {{left_of(world), passed.whole()}}, {}};
  exchanges[1] = {1, {{right_of(world), passed.whole()}}, {{left_of(world), got.whole()}}, {0}};
  Player player(world, device, exchanges);
  player.run_all();
  const int two_left = (world.rank() + 2 * world.world_size() - 2) % world.world_size();
  expect_bytes(got.get(), two_left, 1);
}

void stream_strided_messages(World& world, Device device) {
  if (world.world_size() == 1) return;
  // 4 x 3 x 5 runs of 48 bytes with gaps everywhere; the receiver has the same 2880 bytes as 6 x 2 runs of 240, and as
  // one. The second exchange of the lane packs and unpacks in the place of the first.
  DeviceBytes spread(device, 4 * 4000), other(device, 6 * 1200), flat(device, 2880), odd(device, 960 * 5);
  const Region from{spread.data(), {4, 3, 5}, {4000, 1000, 80}, 48};
  const Region to{other.data(), {6, 2, 1}, {1200, 300, 0}, 240};
  const Region threes{odd.data(), {1, 960, 1}, {0, 5, 0}, 3};
  std::vector<LinkExchange> exchanges(2);
  exchanges[0] = {0,
                  {{right_of(world), from}, {right_of(world), from}},
                  {{left_of(world), to}, {left_of(world), flat.whole()}},
                  {}};
  exchanges[1] = {0, {{right_of(world), from}}, {{left_of(world), threes}}, {}};
  Player player(world, device, exchanges);
  fill(spread, from, world.rank(), 7);
  player.run_all();
  expect_message(other, to, left_of(world), 7);
  expect_message(flat, flat.whole(), left_of(world), 7);
  expect_message(odd, threes, left_of(world), 7);
  const Bytes rest = odd.get();
  for (std::size_t i = 0; i < rest.size(); ++i) {
    expect(i % 5 < 3 || rest[i] == std::byte{0}, "nothing written between the runs, as at ", i);
  }
}

void stream_everybody_to_everybody(World& world, Device device) {
  const int size = world.world_size(), rank = world.rank();
  const auto bytes = [](int from, int to) { return (from * 7 + to * 13) % 5 * 1000; };  // none for many pairs
  std::vector<DeviceBytes> out, in;
  std::vector<LinkExchange> exchanges(1);
  for (int peer = 0; peer < size; ++peer) {
    out.emplace_back(device, bytes_of(rank, peer, bytes(rank, peer)));
    in.emplace_back(device, bytes(peer, rank));
    if (peer == rank) continue;
    exchanges[0].sends.push_back({peer, out[peer].whole()});
    exchanges[0].receives.push_back({peer, in[peer].whole()});
  }
  Player player(world, device, exchanges);
  player.run_each();
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) expect_bytes(in[peer].get(), peer, rank);
  }
}

void stream_lanes_open_as_asked(World& world, Device device) {
  if (world.world_size() == 1) return;
  std::vector<std::unique_ptr<Player>> players;  // those of fewer lanes stay good
  std::vector<DeviceBytes> out, in;
  for (int lane = 0; lane < 5; ++lane) {
    out.emplace_back(device, bytes_of(world.rank(), lane, 7000));
    in.emplace_back(device, 7000);
  }
  for (const int lanes : {1, 2, 3, 5}) {
    std::vector<LinkExchange> exchanges;
    for (int lane = 0; lane < lanes; ++lane) {
      exchanges.push_back({lane, {{right_of(world), out[lane].whole()}}, {{left_of(world), in[lane].whole()}}, {}});
    }
    players.push_back(std::make_unique<Player>(world, device, exchanges));
    for (const std::unique_ptr<Player>& player : players) {
      for (int lane = 0; lane < lanes; ++lane) in[lane].put(Bytes(7000));
      player->run_all();
    }
    for (int lane = 0; lane < lanes; ++lane) expect_bytes(in[lane].get(), left_of(world), lane);
  }
}

void stream_messages_in_order(World& world, Device device) {
  if (world.world_size() == 1) return;
  constexpr int kExchanges = 20, kMessages = 3;
  const auto bytes = [](int series) { return series % 5 == 4 ? 70000 : series % 7; };
  std::vector<DeviceBytes> out, in;
  std::vector<LinkExchange> exchanges(kExchanges);
  for (int series = 0; series < kMessages * kExchanges; ++series) {
    out.emplace_back(device, bytes_of(world.rank(), series, bytes(series)));
    in.emplace_back(device, bytes(series));
    LinkExchange& exchange = exchanges[series / kMessages];
    exchange.lane = series / kMessages % kLanes;
    exchange.sends.push_back({right_of(world), out[series].whole()});
    exchange.receives.push_back({left_of(world), in[series].whole()});
  }
  Player player(world, device, exchanges);
  player.run_all();
  for (int series = 0; series < kMessages * kExchanges; ++series) {
    expect_bytes(in[series].get(), left_of(world), series);
  }
}

// What a message holds is made by copies on the stream, which take a while, between its end of one exchange and the
// start of the next.
void stream_computation_comes_first(World& world, Device device) {
  if (world.world_size() == 1) return;
  constexpr std::int64_t kBytes = 16 << 20;
  DeviceBytes source(device, bytes_of(world.rank(), 5, kBytes)), out(device, kBytes), in(device, kBytes);
  DeviceBytes kept(device, kBytes);
  const std::vector<LinkExchange> exchange = {
      {0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}}};
  Player player(world, device, exchange);
  for (int run = 0; run < 3; ++run) {
    out.put(Bytes(kBytes));
    player.begin();
    for (int again = 0; again < 8; ++again) device_copy(out, source, player.stream());
    player.start(0);
    player.join(0);
    device_copy(kept, in, player.stream());
    player.end();
    player.synchronize();
    expect_bytes(kept.get(), left_of(world), 5);
  }
}

void stream_runs_follow_each_other(World& world, Device device) {
  if (world.world_size() == 1) return;
  constexpr int kRuns = 7;  // odd: the token ends in the other place than it began
  DeviceBytes here(device, bytes_of(world.rank(), 9, 5000)), there(device, 5000);
  const std::vector<LinkExchange> exchange = {
      {1, {{right_of(world), here.whole()}}, {{left_of(world), there.whole()}}, {}}};
  Player player(world, device, exchange);
  for (int run = 0; run < kRuns; ++run) {
    player.begin();
    player.start(0);
    player.join(0);
    player.end();
    device_copy(here, there, player.stream());
  }
  player.synchronize();
  const int origin = (world.rank() + kRuns * (world.world_size() - 1)) % world.world_size();
  expect_bytes(here.get(), origin, 9);
}

void stream_large_messages(World& world, Device device) {
  if (world.world_size() == 1) return;
  constexpr std::int64_t kBytes = 64 << 20;
  DeviceBytes out(device, bytes_of(world.rank(), 11, kBytes)), in(device, kBytes);
  Player player(world, device, {{0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}}});
  player.run_each();
  expect_bytes(in.get(), left_of(world), 11);
}

void stream_times_are_told(World& world, Device device) {
  DeviceBytes out(device, bytes_of(world.rank(), 3, 300000)), in(device, 300000);
  std::vector<LinkExchange> exchanges(2);  // the first has no message: it is complete when its turn comes
  if (world.world_size() > 1) {
    exchanges[1] = {0, {{right_of(world), out.whole()}}, {{left_of(world), in.whole()}}, {}};
  }
  Player player(world, device, exchanges);
  for (int run = 0; run < 2; ++run) {
    player.run_all();
    for (const int exchange : {1, 0}) {
      player.session().wait(exchange, 0);  // a wait for what is complete never fails
      const ExchangeTimes times = player.times(exchange);
      expect(times.began >= 0 && times.began <= times.ended, "began ", times.began, " ended ", times.ended);
    }
  }
}

void stream_misuse_is_a_bug(World& world, Device device) {
  StreamLink& link = world.stream_link(device, 1);
  DeviceBytes bytes(device, 8);
  const auto refused = [&](const LinkExchange& exchange) {
    expect(error_of([&] { link.prepare({exchange}, nullptr); }).code() == ErrorCode::bug, "a refused exchange");
  };
  refused({0, {{world.rank(), bytes.whole()}}, {}, {}});
  refused({0, {{world.world_size(), bytes.whole()}}, {}, {}});
  refused({0, {}, {}, {0}});
  Player player(world, device, std::vector<LinkExchange>(2));
  player.begin();
  expect(error_of([&] { player.start(1); }).code() == ErrorCode::bug, "exchanges are started in order");
  player.start(0);
  player.start(1);
  player.join(1);
  player.end();
  player.synchronize();
}

void stream_another_device_is_refused(World& world, Device device) {
  world.stream_link(device, 1);
  const Device other{device.kind, device.index + 1};
  expect(error_of([&] { world.stream_link(other, 1); }).code() == ErrorCode::invalid, "a rank has one device");
}

}  // namespace orrery::test
