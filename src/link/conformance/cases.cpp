#include "link/conformance/cases.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "link/conformance/rings.hpp"
#include "link/conformance/traffic.hpp"

namespace orrery::conformance {
void rings(World& world) {
  Rings rings(world, false);
  for (int run = 0; run < 3; ++run) {
    rings.fill(run);
    rings.session->begin_run();
    for (int step = 0; step < rings.steps; ++step) {
      for (int lane = 0; lane < kRingLanes; ++lane) rings.session->start(Rings::index(step, lane));
      for (int lane = 0; lane < kRingLanes; ++lane) {
        rings.session->wait(Rings::index(step, lane), kWait);
        rings.expect_after(step, lane, run);
      }
    }
    rings.session->end_run();
  }
}

void chained_rings(World& world) {
  Rings rings(world, true);
  for (int run = 0; run < 3; ++run) {
    rings.fill(run);
    run_all(*rings.session, rings.steps * kRingLanes);
    if (rings.steps > 0) {
      for (int lane = 0; lane < kRingLanes; ++lane) rings.expect_after(rings.steps - 1, lane, run);
    }
  }
}

void strided_messages(World& world) {
  if (world.world_size() == 1) return;
  // 4 x 3 x 5 runs of 24 bytes with gaps everywhere; the receiver has the same 1440 bytes as 6 x 2 x 1 runs of 120, and
  // as one. Negative strides walk backwards.
  Bytes spread(4 * 2000), other(6 * 600), flat(1440), reversed(60 * 30);
  const Region from{spread.data(), {4, 3, 5}, {2000, 500, 40}, 24};
  const Region to{other.data(), {6, 2, 1}, {600, 150, 0}, 120};
  const Region backwards{reversed.data() + 59 * 30, {1, 60, 1}, {0, -30, 0}, 24};
  auto place = [](const Region& region, std::int64_t index) -> std::byte& {
    const std::int64_t run = index / region.run_bytes, inner = run % region.counts[2];
    const std::int64_t middle = run / region.counts[2] % region.counts[1],
                       outer = run / region.counts[2] / region.counts[1];
    return region.data[outer * region.strides[0] + middle * region.strides[1] + inner * region.strides[2] +
                       index % region.run_bytes];
  };
  std::vector<LinkExchange> exchanges(1);
  for (int copy = 0; copy < 3; ++copy) exchanges[0].sends.push_back({right_of(world), from});
  exchanges[0].receives = {{left_of(world), to}, {left_of(world), whole(flat)}, {left_of(world), backwards}};
  const auto session = world.link().prepare(exchanges);
  for (std::int64_t i = 0; i < from.bytes(); ++i) place(from, i) = byte_of(world.rank(), 7, i);
  run_each(*session, 1);
  for (const Region& region : {to, whole(flat), backwards}) {
    for (std::int64_t i = 0; i < region.bytes(); ++i) {
      expect(place(region, i) == byte_of(left_of(world), 7, i), "byte ", i, " of a strided message");
    }
  }
  const std::int64_t touched = std::count_if(other.begin(), other.end(), [](std::byte b) { return b != std::byte{0}; });
  expect(touched <= to.bytes(), "nothing written between the runs");
}

void everybody_to_everybody(World& world) {
  const int size = world.world_size(), rank = world.rank();
  auto bytes = [&](int from, int to) { return (from * 7 + to * 13) % 5 * 1000; };  // none for many pairs
  std::vector<Bytes> out(size), in(size);
  std::vector<LinkExchange> exchanges(1);
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    out[peer] = bytes_of(rank, peer, bytes(rank, peer));
    in[peer].resize(bytes(peer, rank));
    exchanges[0].sends.push_back({peer, whole(out[peer])});
    exchanges[0].receives.push_back({peer, whole(in[peer])});
  }
  const auto session = world.link().prepare(exchanges);
  run_each(*session, 1);
  for (int peer = 0; peer < size; ++peer) expect_bytes(in[peer], peer, rank);
}

void as_many_lanes_as_are_named(World& world) {
  if (world.world_size() == 1) return;
  for (const int lanes : {1, 2, 3, 5}) {
    // Every other rank names the lanes from the last one down: a message that took another lane's place is found.
    const bool backwards = world.rank() % 2 == 1;
    std::vector<Bytes> out, in(static_cast<std::size_t>(lanes), Bytes(700));
    std::vector<LinkExchange> exchanges;
    for (int lane = 0; lane < lanes; ++lane) out.push_back(bytes_of(world.rank(), lane, 700));
    for (int i = 0; i < lanes; ++i) {
      const int lane = backwards ? lanes - 1 - i : i;
      exchanges.push_back({lane, {{right_of(world), whole(out[lane])}}, {{left_of(world), whole(in[lane])}}, {}});
    }
    const auto session = world.link().prepare(exchanges);
    for (int run = 0; run < 2; ++run) {
      run_all(*session, lanes);
      for (int lane = 0; lane < lanes; ++lane) expect_bytes(in[lane], left_of(world), lane);
    }
  }
}

// Several that do not fit into what a network takes at once, one behind the other: each must wait for its turn.
void large_messages(World& world) {
  if (world.world_size() == 1) return;
  constexpr int kMessages = 4;
  std::vector<Bytes> out, in;
  LinkExchange exchange;
  for (int series = 0; series < kMessages; ++series) {
    const std::int64_t bytes = 4000000 / world.world_size() + series;
    out.push_back(bytes_of(world.rank(), series, bytes));
    in.emplace_back(bytes);
  }
  for (int series = 0; series < kMessages; ++series) {
    exchange.sends.push_back({right_of(world), whole(out[series])});
    exchange.receives.push_back({left_of(world), whole(in[series])});
  }
  const auto session = world.link().prepare({exchange});
  for (int run = 0; run < 3; ++run) {
    run_each(*session, 1);
    for (int series = 0; series < kMessages; ++series) expect_bytes(in[series], left_of(world), series);
    for (Bytes& bytes : in) std::fill(bytes.begin(), bytes.end(), std::byte{0});
  }
}

void many_messages_in_order(World& world) {
  if (world.world_size() == 1) return;
  constexpr int kExchanges = 20, kLanes = 2;
  // Three messages an exchange, of sizes on both sides of what MPI sends eagerly.
  auto bytes = [](int series) { return series % 5 == 4 ? 70000 : series % 7; };
  std::vector<Bytes> out, in;
  for (int series = 0; series < 3 * kExchanges; ++series) {
    out.push_back(bytes_of(world.rank(), series, bytes(series)));
    in.emplace_back(bytes(series));
  }
  std::vector<LinkExchange> exchanges(kExchanges);
  for (int series = 0; series < 3 * kExchanges; ++series) {
    exchanges[series / 3].lane = series / 3 % kLanes;
    exchanges[series / 3].sends.push_back({right_of(world), whole(out[series])});
    exchanges[series / 3].receives.push_back({left_of(world), whole(in[series])});
  }
  const auto session = world.link().prepare(exchanges);
  run_all(*session, kExchanges);
  for (int series = 0; series < 3 * kExchanges; ++series) expect_bytes(in[series], left_of(world), series);
}

// Rank 0 starts a receive on lane 0 that rank 1 answers only after it has got something on lane 1.
void lanes_do_not_wait_for_each_other(World& world) {
  if (world.world_size() == 1 || world.rank() > 1) return;
  Bytes first(100000), second = bytes_of(world.rank(), 2, 100000);
  std::vector<LinkExchange> exchanges(2);
  if (world.rank() == 0) {
    exchanges[0] = {0, {}, {{1, whole(first)}}, {}};
    exchanges[1] = {1, {{1, whole(second)}}, {}, {}};
  } else {
    exchanges[0] = {1, {}, {{0, whole(first)}}, {}};
    exchanges[1] = {0, {{0, whole(second)}}, {}, {0}};
  }
  const auto session = world.link().prepare(exchanges);
  run_all(*session, 2);
  expect_bytes(first, 1 - world.rank(), 2);
}

// On rank 1, exchange 1 waits for exchange 0 of another lane and exchange 2, of the same lane as 1, is ready before it.
// What 2 sends must still be what rank 0 receives second.
void later_exchanges_of_a_lane_overtake_nothing(World& world) {
  if (world.world_size() == 1 || world.rank() > 1) return;
  Bytes signal(1000), one = bytes_of(world.rank(), 1, 500), two = bytes_of(world.rank(), 2, 500);
  std::vector<LinkExchange> exchanges(3);
  if (world.rank() == 0) {
    exchanges[0] = {1, {{1, whole(signal)}}, {}, {}};
    exchanges[1] = {0, {}, {{1, whole(one)}}, {}};
    exchanges[2] = {0, {}, {{1, whole(two)}}, {}};
  } else {
    exchanges[0] = {1, {}, {{0, whole(signal)}}, {}};
    exchanges[1] = {0, {{0, whole(one)}}, {}, {0}};
    exchanges[2] = {0, {{0, whole(two)}}, {}, {}};
  }
  const auto session = world.link().prepare(exchanges);
  if (world.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  run_all(*session, 3);
  expect_bytes(one, 1, 1);
  expect_bytes(two, 1, 2);
}

void done_becomes_true_and_times_are_told(World& world) {
  Bytes out = bytes_of(world.rank(), 3, 300000), in(300000);
  std::vector<LinkExchange> exchanges(2);  // the first has no message: done as soon as it is started
  if (world.world_size() > 1) {
    exchanges[1].sends.push_back({right_of(world), whole(out)});
    exchanges[1].receives.push_back({left_of(world), whole(in)});
  }
  const auto session = world.link().prepare(exchanges);
  for (int run = 0; run < 2; ++run) {
    session->begin_run();
    expect(!session->done(0) && !session->done(1), "nothing done before it is started");
    session->start(0);
    session->start(1);
    while (!session->done(0) || !session->done(1)) std::this_thread::yield();
    session->wait(1, 0);  // a wait for what is done never fails
    session->end_run();
    for (int exchange : {0, 1}) {
      const ExchangeTimes times = session->times(exchange);
      expect(times.began > 0 && times.began <= times.ended, "began ", times.began, " ended ", times.ended);
    }
  }
}

void sessions_take_turns(World& world) {
  if (world.world_size() == 1) return;
  Bytes out[2], in[2];
  std::unique_ptr<LinkSession> sessions[2];
  for (int each : {0, 1}) {
    out[each] = bytes_of(world.rank(), each, 3000 + each);
    in[each].resize(3000 + each);
    sessions[each] =
        world.link().prepare({{0, {{right_of(world), whole(out[each])}}, {{left_of(world), whole(in[each])}}, {}}});
  }
  for (int run = 0; run < 5; ++run) {
    for (int each : {0, 1, 1}) {
      std::fill(in[each].begin(), in[each].end(), std::byte{0});
      run_each(*sessions[each], 1);
      expect_bytes(in[each], left_of(world), each);
      if (run == 2) world.barrier();  // between runs the world may be used for anything else
    }
  }
}

void ragged_all_gather(World& world) {
  for (int round = 0; round < 20; ++round) {
    auto bytes = [&](int rank) { return (rank * 37 + round * 11) % 4 * 50; };
    const auto all = world.all_gather(bytes_of(world.rank(), round, bytes(world.rank())));
    expect(static_cast<int>(all.size()) == world.world_size(), "a record of every rank");
    for (int rank = 0; rank < world.world_size(); ++rank) {
      expect(static_cast<int>(all[rank].size()) == bytes(rank), "the size of the record of rank ", rank);
      expect_bytes(all[rank], rank, round);
    }
  }
  world.barrier();
  const std::vector<double> ranks = all_gather(world, 0.5 + world.rank());
  const std::vector<std::string> names = all_gather(world, std::string(world.rank(), 'x'));
  for (int rank = 0; rank < world.world_size(); ++rank) {
    expect(ranks[rank] == 0.5 + rank && names[rank] == std::string(rank, 'x'), "the values of rank ", rank);
  }
}

void all_reduce_adds_in_the_order_of_the_ranks(World& world) {
  const int last = world.world_size() - 1;
  double sum = 0;
  for (int rank = 0; rank <= last; ++rank) sum += 1.0 / (rank + 3);
  for (int round = 0; round < 5; ++round) {
    std::vector<double> values(100 * round, 1.0 / (world.rank() + 3));
    world.all_reduce(values, Reduction::sum);
    for (const double value : values) expect(value == sum, "the sum ", sum, ", not ", value);
    std::vector<double> most = {-1.0 * world.rank(), 0.5 + world.rank(), -std::numeric_limits<double>::infinity()};
    world.all_reduce(most, Reduction::max);
    expect(most[0] == 0 && most[1] == 0.5 + last && std::isinf(most[2]), "the largest");
  }
}

void errors_are_agreed_on(World& world) {
  agree_no_error(world, nullptr);
  const int last = world.world_size() - 1, lowest = std::min(1, last);
  const Error mine(world.rank() == lowest ? ErrorCode::resource : ErrorCode::invalid,
                   concat("no disk on ", world.rank()));
  const bool met = world.rank() == lowest || world.rank() == last;
  const Error agreed = error_of([&] { agree_no_error(world, met ? &mine : nullptr); });
  expect(agreed.code() == ErrorCode::resource, "the code of the lowest rank");
  expect(agreed.what() == concat("rank ", lowest, ": no disk on ", lowest), "its message, not: ", agreed.what());
}

void misuse_is_a_bug(World& world) {
  auto refused = [&](const LinkExchange& exchange) {
    expect(error_of([&] { world.link().prepare({exchange}); }).code() == ErrorCode::bug, "a refused exchange");
  };
  Bytes bytes(8);
  refused({0, {{world.rank(), whole(bytes)}}, {}, {}});
  refused({0, {{world.world_size(), whole(bytes)}}, {}, {}});
  refused({-1, {}, {}, {}});
  refused({0, {}, {}, {0}});
  const auto session = world.link().prepare(std::vector<LinkExchange>(2));
  session->begin_run();
  expect(error_of([&] { session->start(1); }).code() == ErrorCode::bug, "exchanges are started in order");
  expect(error_of([&] { session->wait(0, kWait); }).code() == ErrorCode::bug, "only what was started is awaited");
  session->end_run();
}

}  // namespace orrery::conformance
