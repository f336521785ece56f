#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/thread_pool.hpp"
#include "orrery/error.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

TEST_CASE("every item runs once, on a thread of the pool") {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (std::int64_t items : {0, 1, 2, 3, 100, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(items));
      std::atomic<bool> strangers{false};
      pool.for_each(items, [&](std::int64_t item, int thread) {
        ++runs[static_cast<std::size_t>(item)];
        if (thread < 0 || thread >= threads) strangers = true;
      });
      for (auto& count : runs) CHECK(count == 1);
      CHECK(!strangers);
    }
  }
}

TEST_CASE("no thread runs two items at a time, and what they wrote is seen after the call") {
  ThreadPool pool(4);
  std::vector<std::int64_t> sums(4, 0);
  std::int64_t expected = 0;
  for (int call = 0; call < 2000; ++call) {
    pool.for_each(7, [&](std::int64_t item, int thread) { sums[static_cast<std::size_t>(thread)] += item + call; });
    expected += 21 + 7 * call;
    REQUIRE(sums[0] + sums[1] + sums[2] + sums[3] == expected);
  }
}

TEST_CASE("workers that fell asleep wake for the next call, and are waited for") {
  ThreadPool pool(3);
  for (int call = 0; call < 5; ++call) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> done{0};
    pool.for_each(6, [&](std::int64_t, int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ++done;
    });
    CHECK(done == 6);
  }
}

TEST_CASE("a later item may wait for an earlier one, since items are taken in order") {
  ThreadPool pool(4);
  std::atomic<std::int64_t> next{0};
  pool.for_each(500, [&](std::int64_t item, int) {
    while (next.load(std::memory_order_acquire) != item) std::this_thread::yield();
    next.store(item + 1, std::memory_order_release);
  });
  CHECK(next == 500);
}

TEST_CASE("a pool of no threads is refused") {
  CHECK_THROWS_AS(ThreadPool(0), Error);
}

}  // namespace
}  // namespace orrery::test
