#include "link/streams/names_in_band.hpp"

#include <algorithm>
#include <new>
#include <set>
#include <tuple>
#include <utility>

namespace orrery {
namespace {

// The first messages of a run to or from a peer on a lane, of each exchange.
class FirstMessages {
 public:
  bool operator()(int lane, const StreamMessage& message) {
    return seen_.insert({lane, message.peer, message.receive}).second;
  }

 private:
  std::set<std::tuple<int, int, bool>> seen_;
};

std::size_t received_names(const std::vector<NamesInBand::Moved>& exchanges) {
  FirstMessages first;
  std::size_t count = 0;
  for (const NamesInBand::Moved& exchange : exchanges) {
    for (const StreamMessage& message : exchange.messages) {
      if (first(exchange.lane, message) && message.receive) ++count;
    }
  }
  return count;
}

}  // namespace

NamesInBand::NamesInBand(std::vector<Moved> exchanges)
    : exchanges_(std::move(exchanges)),
      names_(1 + received_names(exchanges_)),
      memory_(kCopies * names_ * sizeof(RunName), "the names of runs") {
  for (int copy = 0; copy < kCopies; ++copy) {
    for (std::size_t at = 0; at < names_; ++at) new (name(copy, at)) RunName{};
  }
  FirstMessages first;
  for (std::size_t index = 0; index < exchanges_.size(); ++index) {
    std::array<std::vector<StreamMessage>, kCopies> groups;
    for (const StreamMessage& message : exchanges_[index].messages) {
      if (!first(exchanges_[index].lane, message)) continue;
      const std::size_t at = message.receive ? 1 + slots_.size() : 0;
      if (message.receive) slots_.push_back({static_cast<int>(index), message.peer, at});
      for (int copy = 0; copy < kCopies; ++copy) {
        groups[copy].push_back(
            {message.peer, message.receive, reinterpret_cast<std::byte*>(name(copy, at)), sizeof(RunName)});
      }
    }
    for (int copy = 0; copy < kCopies; ++copy) {
      groups[copy].insert(groups[copy].end(), exchanges_[index].messages.begin(), exchanges_[index].messages.end());
      groups_[copy].push_back(std::move(groups[copy]));
    }
  }
}

RunName* NamesInBand::name(int copy, std::size_t at) const {
  return reinterpret_cast<RunName*>(memory_.data()) + static_cast<std::size_t>(copy) * names_ + at;
}

void NamesInBand::begin_run(int copy, const RunName& run) {
  *name(copy, 0) = run;
}

std::optional<std::string> NamesInBand::fault(int copy, int exchange, int rank) const {
  const auto of_exchange = std::equal_range(slots_.begin(), slots_.end(), Slot{exchange, 0, 0},
                                            [](const Slot& a, const Slot& b) { return a.exchange < b.exchange; });
  const RunName& mine = *name(copy, 0);
  for (auto slot = of_exchange.first; slot != of_exchange.second; ++slot) {
    const RunName& theirs = *name(copy, slot->at);
    if (theirs != mine) return not_the_same(slot->peer, theirs, rank, mine);
  }
  return std::nullopt;
}

}  // namespace orrery
