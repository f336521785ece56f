#include "link/transport/progress_thread.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "link/deadline.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

using std::chrono::microseconds;
constexpr microseconds kHot{50};
constexpr microseconds kShortestNap{20}, kLongestNap{200};
constexpr double kStuckSeconds = 1;  // no call that only polls takes this long

}  // namespace

struct ProgressThread::Shared {
  std::mutex mutex;
  std::condition_variable wake;    // the thread waits for something to do
  std::condition_variable rested;  // the caller waits for the thread to let go
  ProgressWork* work = nullptr;
  bool stop = false;
  bool kicked = false;
  bool napping = false;
  std::atomic<bool> leave = false;
  std::atomic<bool> blocked = false;
  std::atomic<bool> core_to_spare = false;
  std::thread thread;
};

ProgressThread::ProgressThread() : shared_(std::make_unique<Shared>()) {
  try {
    shared_->thread = std::thread([shared = shared_.get()] { main(*shared); });
  } catch (const std::system_error& error) {
    fail(ErrorCode::resource, "cannot start the progress thread of the transport: ", error.what());
  }
}

ProgressThread::~ProgressThread() {
  const bool rested = release(kStuckSeconds);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
    shared_->wake.notify_one();
  }
  if (rested) {
    shared_->thread.join();
  } else {  // it never comes back from the transport, and the process is about to be aborted: what it uses must stay
    shared_->thread.detach();
    static_cast<void>(shared_.release());
  }
}

void ProgressThread::take(ProgressWork& work) {
  const std::lock_guard lock(shared_->mutex);
  ORRERY_CHECK(shared_->work == nullptr, "two runs at once on one link");
  shared_->work = &work;
  shared_->leave = false;
  shared_->wake.notify_one();
}

void ProgressThread::kick() {
  const std::lock_guard lock(shared_->mutex);
  shared_->kicked = true;
  if (shared_->napping) shared_->wake.notify_one();
}

void ProgressThread::core_to_spare(bool spare) {
  shared_->core_to_spare = spare;
}

void ProgressThread::caller_blocks(bool blocked) {
  shared_->blocked = blocked;
  if (blocked) kick();
}

bool ProgressThread::serving() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->work != nullptr;
}

bool ProgressThread::release(double seconds) noexcept {
  std::unique_lock lock(shared_->mutex);
  shared_->leave = true;
  shared_->wake.notify_one();
  return shared_->rested.wait_until(lock, Deadline(seconds).at(), [&] { return shared_->work == nullptr; });
}

void ProgressThread::main(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  for (;;) {
    shared.wake.wait(lock, [&] { return shared.stop || shared.work != nullptr; });
    if (shared.stop) return;
    ProgressWork& work = *shared.work;
    lock.unlock();
    try {
      serve(shared, work);
    } catch (...) {
      work.fail(std::make_exception_ptr(current_error()));
    }
    lock.lock();
    shared.work = nullptr;
    shared.rested.notify_all();
  }
}

void ProgressThread::serve(Shared& shared, ProgressWork& work) {
  auto hot_until = std::chrono::steady_clock::now() + kHot;
  microseconds nap = kShortestNap;
  while (!shared.leave) {
    const ProgressWork::State state = work.poll();
    const auto now = std::chrono::steady_clock::now();
    if (state.events > 0) {
      hot_until = now + kHot;
      nap = kShortestNap;
    }
    if (now < hot_until || (state.in_flight && (shared.blocked || shared.core_to_spare))) {
      sched_yield();
      continue;
    }
    std::unique_lock lock(shared.mutex);
    auto roused = [&] { return shared.kicked || shared.leave; };
    shared.napping = true;
    if (state.in_flight) {
      shared.wake.wait_for(lock, nap, roused);
      nap = std::min(2 * nap, kLongestNap);
    } else {
      shared.wake.wait(lock, roused);
    }
    shared.napping = false;
    shared.kicked = false;
  }
}

}  // namespace orrery
