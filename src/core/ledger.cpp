#include "core/ledger.hpp"

#include <algorithm>

#include "core/overlap.hpp"

namespace orrery {

void Ledger::note(const Entry& entry) {
  if (!holds(entry)) entries_.push_back(entry);
}

bool Ledger::holds(const Entry& entry) const {
  return std::find(entries_.begin(), entries_.end(), entry) != entries_.end();
}

void Ledger::overwrite(const TensorView& memory) {
  std::erase_if(entries_, [&](const Entry& entry) {
    return std::any_of(entry.memory().begin(), entry.memory().end(),
                       [&](const TensorView& left) { return overlap(left, memory); });
  });
}

void Ledger::forget(std::uint64_t owner) {
  std::erase_if(entries_, [=](const Entry& entry) { return entry.owner() == owner; });
}

TensorView bytes_view(std::span<std::byte> bytes) {
  return TensorView::dense(bytes.data(), Dtype::fp32, 1, 1, 1,
                           static_cast<std::int64_t>(bytes.size() / size_of(Dtype::fp32)));
}

}  // namespace orrery
