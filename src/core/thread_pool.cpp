// One call is open at a time. Whoever is awake joins it and takes items off a shared counter; the caller works too, and
// returns when the items are gone and all that joined have left. A worker that slept through a call never joins it, so
// a short call does not wait for a slow awakening. Workers watch for the next call for some microseconds, because the
// steps of a schedule follow closely, then sleep: several ranks may share these cores.
#include "core/thread_pool.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr int kSpins = 1000;

void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The state of the pool in one word: whether a call is open, how many workers are inside it, and which call it is.
constexpr std::uint64_t kOpen = 1, kOneInside = 2, kInsideMask = 0xfffe, kOneCall = 0x10000;
constexpr std::uint64_t inside(std::uint64_t state) {
  return state & kInsideMask;
}
constexpr std::uint64_t call_number(std::uint64_t state) {
  return state / kOneCall;
}

}  // namespace

struct ThreadPool::Workers {
  std::atomic<std::uint64_t> state{0};
  std::atomic<std::int64_t> next_item{0};
  std::atomic<bool> stop{false};
  std::int64_t items = 0;
  Call call = nullptr;
  void* context = nullptr;
  std::mutex mutex;
  std::condition_variable wake, left;
  std::vector<std::thread> threads;

  ~Workers() {
    {
      std::lock_guard lock(mutex);
      stop.store(true, std::memory_order_relaxed);
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void work(int thread) {
    for (std::int64_t item; (item = next_item.fetch_add(1, std::memory_order_relaxed)) < items;) {
      call(context, item, thread);
    }
  }

  bool news(std::uint64_t seen) const {
    const std::uint64_t now = state.load(std::memory_order_acquire);
    return stop.load(std::memory_order_relaxed) || ((now & kOpen) && call_number(now) != seen);
  }

  bool join(std::uint64_t* seen) {
    std::uint64_t now = state.load(std::memory_order_acquire);
    while ((now & kOpen) && call_number(now) != *seen) {
      if (state.compare_exchange_weak(now, now + kOneInside, std::memory_order_acq_rel)) {
        *seen = call_number(now);
        return true;
      }
    }
    return false;
  }

  void leave() {
    const std::uint64_t before = state.fetch_sub(kOneInside, std::memory_order_acq_rel);
    if (!(before & kOpen) && inside(before) == kOneInside) {
      std::lock_guard lock(mutex);
      left.notify_one();
    }
  }

  void loop(int thread) {
    std::uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && !news(seen); ++spin) pause_core();
      if (!news(seen)) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return news(seen); });
      }
      if (stop.load(std::memory_order_relaxed)) return;
      if (join(&seen)) {
        work(thread);
        leave();
      }
    }
  }

  void open() {
    {
      std::lock_guard lock(mutex);
      state.fetch_add(kOneCall + kOpen, std::memory_order_acq_rel);
    }
    wake.notify_all();
  }

  void close() {
    state.fetch_sub(kOpen, std::memory_order_acq_rel);
    auto empty = [&] { return inside(state.load(std::memory_order_acquire)) == 0; };
    for (int spin = 0; spin < kSpins && !empty(); ++spin) pause_core();
    if (!empty()) {
      std::unique_lock lock(mutex);
      left.wait(lock, empty);
    }
  }
};

void ThreadPool::check(int threads) {
  if (threads < 1 || threads > 4096) refuse("a thread pool has 1 to 4096 threads, not ", threads);
}

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  check(threads);
  if (threads == 1) return;
  workers_ = std::make_unique<Workers>();
  workers_->threads.reserve(static_cast<std::size_t>(threads - 1));
  for (int thread = 1; thread < threads; ++thread) {
    try {
      workers_->threads.emplace_back([workers = workers_.get(), thread] { workers->loop(thread); });
    } catch (const std::system_error& error) {
      fail(ErrorCode::resource, "cannot start thread ", thread + 1, " of the ", threads, " of a rank: ", error.what(),
           "; limits are set on threads (ulimit -u, a container's pids) and on address space (ulimit -v)");
    }
  }
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::run(std::int64_t items, Call call, void* context) {
  if (!workers_ || items <= 1) {
    for (std::int64_t item = 0; item < items; ++item) call(context, item, 0);
    return;
  }
  workers_->items = items;
  workers_->call = call;
  workers_->context = context;
  workers_->next_item.store(0, std::memory_order_relaxed);
  workers_->open();
  workers_->work(0);
  workers_->close();
}

}  // namespace orrery
