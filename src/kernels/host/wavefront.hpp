// Keeps dQ deterministic while several threads work on one unit. Items, which are key blocks of a unit in order, all
// add to the same rows of dQ; item i may add to a strip of rows only after item i - 1 has passed it. So the sums are
// taken in key order, and the threads follow each other down the rows like a wave, each a strip or more behind the one
// before.
//
// The pool hands items out in order, so whoever an item waits for is already running: there is no deadlock. Progress is
// kept in a ring of slots; an item takes its slot over only when the slot's last owner is done.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>

namespace orrery::kernels {

class Wavefront {
 public:
  static int slots(int threads) { return 4 * threads; }
  static std::size_t bytes(int threads) { return static_cast<std::size_t>(slots(threads)) * sizeof(Slot); }

  // `memory` is 64-byte aligned and holds bytes(threads).
  Wavefront(std::byte* memory, int threads, std::int64_t strips)
      : ring_(reinterpret_cast<Slot*>(memory)), slots_(slots(threads)), strips_(strips) {
    for (int i = 0; i < slots_; ++i) new (&ring_[i]) Slot;
  }

  void begin(std::int64_t item) {
    if (item >= slots_) wait_until(item - slots_, strips_);
    slot(item).store(value(item, 0), std::memory_order_release);
  }
  // Waits until `item` has passed its first `strips` strips.
  void wait_until(std::int64_t item, std::int64_t strips) const {
    for (int spin = 0; slot(item).load(std::memory_order_acquire) < value(item, strips); ++spin) {
      if (spin >= kSpins) std::this_thread::yield();
    }
  }
  void passed(std::int64_t item, std::int64_t strips) {
    slot(item).store(value(item, strips), std::memory_order_release);
  }

 private:
  static constexpr int kSpins = 100;
  struct alignas(64) Slot {
    std::atomic<std::int64_t> progress{-1};
  };
  std::int64_t value(std::int64_t item, std::int64_t strips) const { return item * (strips_ + 1) + strips; }
  std::atomic<std::int64_t>& slot(std::int64_t item) const { return ring_[item % slots_].progress; }

  Slot* ring_;
  int slots_;
  std::int64_t strips_;
};

}  // namespace orrery::kernels
