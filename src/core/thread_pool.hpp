// A rank's worker threads. Work is dealt by index, so which thread ran an item never shows in a result.
#pragma once

#include <cstdint>
#include <memory>

namespace orrery {

class ThreadPool {
 public:
  // Throws ErrorCode::invalid for a number of threads that no pool has.
  static void check(int threads);
  // `threads` counts the calling thread: a pool of one starts no thread at all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls body(item, thread) for every item in [0, items), thread in [0, threads()); returns when all are done.
  // Items are taken in order, one at a time. Allocates nothing. The body must not throw.
  template <typename Body>
  void for_each(std::int64_t items, Body&& body) {
    auto call = [](void* context, std::int64_t item, int thread) { (*static_cast<Body*>(context))(item, thread); };
    run(items, call, const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void* context, std::int64_t item, int thread);
  void run(std::int64_t items, Call call, void* context);

  struct Workers;
  int threads_;
  std::unique_ptr<Workers> workers_;
};

}  // namespace orrery
