// What runs left in memory that is not theirs. A backward run needs what its forward run left, in tensors and memory of
// the caller's, who may have bound, run or shared them otherwise since. The ledger of a rank notes what was left where,
// and forgets an entry as soon as a run writes over a byte of it. It knows addresses and reads no memory, so it serves
// hosts and devices alike; it does not see what a caller writes himself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "orrery/tensor.hpp"

namespace orrery {

class Ledger {
 public:
  // Copies share the list, so that noting one allocates nothing.
  class Entry {
   public:
    Entry() : Entry(0, {}) {}
    Entry(std::uint64_t owner, std::vector<TensorView> memory)
        : owner_(owner), memory_(std::make_shared<const std::vector<TensorView>>(std::move(memory))) {}

    std::uint64_t owner() const { return owner_; }
    const std::vector<TensorView>& memory() const { return *memory_; }
    friend bool operator==(const Entry& a, const Entry& b) { return a.owner_ == b.owner_ && a.memory() == b.memory(); }

   private:
    std::uint64_t owner_;
    std::shared_ptr<const std::vector<TensorView>> memory_;
  };

  // A number that nobody else has.
  std::uint64_t new_owner() { return ++owners_; }
  // How many runs of this world there were, whosever: ranks are at the same run when they have counted as many.
  std::uint64_t runs() const { return runs_; }
  void count_run() { ++runs_; }
  // Makes room for `more` entries, so that as many note() allocate nothing.
  void reserve(std::size_t more) { entries_.reserve(entries_.size() + more); }

  void note(const Entry& entry);
  bool holds(const Entry& entry) const;
  // Somebody is about to write here: forgets what shares a byte with it.
  void overwrite(const TensorView& memory);
  void forget(std::uint64_t owner);

 private:
  std::vector<Entry> entries_;
  std::uint64_t owners_ = 0, runs_ = 0;
};

// Plain bytes, a multiple of four of them, as a tensor of one row.
TensorView bytes_view(std::span<std::byte> bytes);

}  // namespace orrery
