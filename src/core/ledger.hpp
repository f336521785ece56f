// What runs left in memory that is not theirs. A backward run needs what its forward run left, in tensors and memory of
// the caller's, who may have bound, run or shared them otherwise since. The ledger of a rank notes what was left where,
// and forgets an entry as soon as a run writes over a byte of it. It knows addresses and reads no memory, so it serves
// hosts and devices alike; it does not see what a caller writes himself.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "orrery/tensor.hpp"

namespace orrery {

class Ledger {
 public:
  struct Entry {
    std::uint64_t owner = 0;
    std::array<TensorView, 6> memory = {};  // those that are not used have no elements
    friend bool operator==(const Entry&, const Entry&) = default;
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
