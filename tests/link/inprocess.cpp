// The world whose ranks are threads: conformance for many sizes, and what happens when a rank fails, leaves or stays
// away.
#include <chrono>
#include <set>
#include <thread>

#include "link/conformance.hpp"
#include "link/deadline.hpp"
#include "link/figures.hpp"
#include "link/traffic.hpp"
#include "orrery/conformance.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

using std::chrono::milliseconds;

LinkExchange send(int peer, Bytes& bytes, int lane = 0) {
  return {lane, {{peer, whole(bytes)}}, {}, {}};
}
LinkExchange receive(int peer, Bytes& bytes, int lane = 0) {
  return {lane, {}, {{peer, whole(bytes)}}, {}};
}

// One exchange, started and awaited.
void transfer(World& world, const LinkExchange& exchange, double timeout_seconds = kWait) {
  const auto session = world.link().prepare({exchange});
  session->begin_run();
  session->start(0);
  session->wait(0, timeout_seconds);
  session->end_run();
}

}  // namespace

TEST_CASE("ranks that are threads conform") {
  const int world_size = GENERATE(1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64);
  run_in_process(world_size, {}, [&](World& world) {
    expect(world.world_size() == world_size && world.link_name() == "inprocess", "the world that was asked for");
    conform_and_allocate_nothing(world);
  });
}

TEST_CASE("ranks that are threads find out when one of them goes wrong") {
  std::mutex mutex;
  std::string complaints;
  int cases = 0;
  {
    std::vector<std::jthread> worlds;  // all at once, for each waits for its deadline
    for (const ConformanceCase& each : conformance_cases()) {
      if (!each.fails) continue;
      ++cases;
      worlds.emplace_back([&, name = each.name] {
        const auto conforms = [&](World& world) {
          try {
            orrery::conform(world, name);
          } catch (const Error& error) {
            const std::lock_guard lock(mutex);
            complaints += concat("rank ", world.rank(), ": ", error.what(), '\n');
          }
        };
        try {
          run_in_process(3, {1.5}, conforms);
        } catch (const Error&) {  // what failed the world, on purpose
        }
      });
    }
  }
  CHECK(complaints.empty());
  CHECK(cases == 5);
}

TEST_CASE("every rank has its own number and runs once") {
  std::mutex mutex;
  std::multiset<int> ranks;
  run_in_process(9, {}, [&](World& world) {
    const std::lock_guard lock(mutex);
    ranks.insert(world.rank());
  });
  CHECK(ranks == std::multiset<int>{0, 1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("a world must have ranks and a timeout") {
  CHECK(error_of([] { run_in_process(0, {}, [](World&) {}); }).code() == ErrorCode::invalid);
  CHECK(error_of([] { run_in_process(1, {0}, [](World&) {}); }).code() == ErrorCode::invalid);
}

TEST_CASE("an error of one rank wakes the waits of the others and is the one that is thrown") {
  std::atomic<int> woken = 0;
  const double before = steady_seconds();
  const Error error = error_of([&] {
    run_in_process(5, {}, [&](World& world) {
      if (world.rank() == 3) {
        std::this_thread::sleep_for(milliseconds(20));
        fail(ErrorCode::resource, "the disk is full");
      }
      Bytes bytes(8);
      const Error seen =
          error_of([&] { world.rank() % 2 == 0 ? world.barrier() : transfer(world, receive(3, bytes)); });
      expect(seen.code() == ErrorCode::peer && std::string(seen.what()) == "rank 3 failed: the disk is full",
             seen.what());
      ++woken;
      throw seen;
    });
  });
  CHECK(steady_seconds() - before < 10);
  CHECK(woken == 4);
  CHECK(error.code() == ErrorCode::resource);
  CHECK(std::string(error.what()) == "the disk is full");
}

TEST_CASE("an exception that is not ours comes through as it is") {
  CHECK_THROWS_AS(run_in_process(3, {},
                                 [](World& world) {
                                   if (world.rank() == 1) throw std::out_of_range("seven");
                                   world.barrier();
                                 }),
                  std::out_of_range);
}

TEST_CASE("abort wakes the others and returns") {
  const Error error = error_of([] {
    run_in_process(3, {}, [](World& world) {
      if (world.rank() == 2) return world.abort(ErrorCode::verification, "wrong numbers");
      world.barrier();
    });
  });
  CHECK(error.code() == ErrorCode::verification);
  CHECK(std::string(error.what()) == "wrong numbers");
}

TEST_CASE("a deadline names the peer, the direction and the bytes") {
  const bool receives = GENERATE(true, false);
  const double before = steady_seconds();
  const Error error = error_of([&] {
    run_in_process(3, {}, [&](World& world) {
      Bytes bytes(4096);
      if (world.rank() == 0) {
        transfer(world, receives ? receive(2, bytes, 1) : send(2, bytes, 1), 0.2);
      } else {
        std::this_thread::sleep_for(milliseconds(400));
      }
    });
  });
  CHECK(steady_seconds() - before < 5);
  CHECK(error.code() == ErrorCode::peer);
  CHECK(std::string(error.what()) ==
        (receives ? "nothing from rank 2 for 0.2 s: 4096 of 4096 bytes outstanding to receive on lane 1"
                  : "rank 2 took nothing for 0.2 s: 4096 of 4096 bytes outstanding to send on lane 1"));
}

TEST_CASE("a deadline speaks of the exchange that holds up the one awaited") {
  const Error error = error_of([] {
    run_in_process(2, {}, [](World& world) {
      Bytes first(100), second(200);
      if (world.rank() == 1) return std::this_thread::sleep_for(milliseconds(400));
      LinkExchange later = send(1, second, 1);
      later.after = {0};
      const auto session = world.link().prepare({receive(1, first), later});
      session->begin_run();
      session->start(0);
      session->start(1);
      session->wait(1, 0.1);
    });
  });
  CHECK(std::string(error.what()) ==
        "nothing from rank 1 for 0.1 s: 100 of 100 bytes outstanding to receive on lane 0");
}

TEST_CASE("the caller's hook ends every wait") {
  const bool gathers = GENERATE(true, false);
  std::atomic<int> asked = 0;
  const double before = steady_seconds();
  const Error error = error_of([&] {
    const WorldOptions options{.timeout_seconds = 100, .interrupted = [&] { return ++asked > 2; }};
    run_in_process(2, options, [&](World& world) {
      Bytes bytes(8);
      if (world.rank() == 1) {
        while (asked < 3) std::this_thread::sleep_for(milliseconds(10));
        std::this_thread::sleep_for(milliseconds(100));
      } else {
        gathers ? world.barrier() : transfer(world, receive(1, bytes));
      }
    });
  });
  CHECK(steady_seconds() - before < 20);
  CHECK(error.code() == ErrorCode::interrupted);
  CHECK(std::string(error.what()) == "a wait for other ranks was interrupted");
}

TEST_CASE("messages of different runs do not meet, and the error names both") {
  const Error error = error_of([] {
    run_in_process(2, {.timeout_seconds = 20}, [](World& world) {
      Bytes bytes(8);
      const bool sends = world.rank() == 0;
      const auto session = world.link().prepare({sends ? send(1, bytes) : receive(0, bytes)});
      session->begin_run(sends ? RunName{7, 3, 0} : RunName{7, 3, 1});
      session->start(0);
      session->wait(0, kWait);
    });
  });
  CHECK(error.code() == ErrorCode::peer);
  CHECK(std::string(error.what()) ==
        "the ranks are not at the same call: rank 0 is at call 3 (forward) of plan 7, rank 1 at call 3 (backward) of "
        "plan 7");
}

TEST_CASE("all_gather names the ranks that did not come") {
  const Error error = error_of([] {
    run_in_process(5, {1.0}, [](World& world) {
      if (world.rank() == 1 || world.rank() == 4) {
        std::this_thread::sleep_for(milliseconds(2000));
      } else {
        world.barrier();
      }
    });
  });
  CHECK(error.code() == ErrorCode::peer);
  CHECK(std::string(error.what()) == "ranks 1 and 4 did not come to all_gather within 1.0 s");
}

TEST_CASE("a rank that returned is missed at once") {
  const double before = steady_seconds();
  const Error gather = error_of([] {
    run_in_process(4, {}, [](World& world) {
      if (world.rank() != 2) world.barrier();
    });
  });
  CHECK(std::string(gather.what()) == "rank 2 returned without coming to all_gather");
  const Error message = error_of([] {
    run_in_process(2, {}, [](World& world) {
      Bytes bytes(64);
      if (world.rank() == 0) transfer(world, receive(1, bytes));
    });
  });
  CHECK(message.code() == ErrorCode::peer);
  CHECK(std::string(message.what()) == "rank 1 has returned: 64 of 64 bytes outstanding to receive on lane 0");
  CHECK(steady_seconds() - before < 10);
}

TEST_CASE("sizes that differ are a bug that names both") {
  const Error error = error_of([] {
    run_in_process(2, {}, [](World& world) {
      Bytes bytes(world.rank() == 0 ? 100 : 60);
      transfer(world, world.rank() == 0 ? send(1, bytes) : receive(0, bytes));
    });
  });
  CHECK(error.code() == ErrorCode::bug);
  CHECK(std::string(error.what()) == "rank 0 sends 100 bytes on lane 0 where rank 1 receives 60");
}

// Ends while copies are under way and while others still post to it: mostly for the thread and address sanitizers.
TEST_CASE("a run can be abandoned at any moment") {
  for (int attempt = 0; attempt < 20; ++attempt) {
    const Error error = error_of([&] {
      run_in_process(4, {}, [&](World& world) {
        Bytes out(1 << 20), in(1 << 20);
        std::vector<LinkExchange> exchanges;
        for (int i = 0; i < 8; ++i) {
          exchanges.push_back({0, {{right_of(world), whole(out)}}, {{left_of(world), whole(in)}}, {}});
          if (i > 0) exchanges.back().after.push_back(i - 1);
        }
        const auto session = world.link().prepare(exchanges);
        session->begin_run();
        for (int i = 0; i < 8; ++i) {
          if (world.rank() == 1 && i == attempt % 8) fail(ErrorCode::verification, "stop");
          session->start(i);
        }
        for (int i = 0; i < 8; ++i) session->wait(i, kWait);
      });
    });
    CHECK(error.code() == ErrorCode::verification);
  }
}

TEST_CASE("figures", "[.figures]") {
  run_in_process(2, {}, print_figures);
}

}  // namespace orrery::test
