#include "link/posting_order.hpp"

#include <algorithm>

namespace orrery {

PostingOrder::PostingOrder(const std::vector<LinkExchange>& exchanges)
    : begun_(exchanges.size()), completed_(exchanges.size()) {
  for (int index = 0; index < static_cast<int>(exchanges.size()); ++index) {
    after_.push_back(exchanges[index].after);
    const int number = exchanges[index].lane;
    auto lane = std::find_if(lanes_.begin(), lanes_.end(), [=](const Lane& known) { return known.number == number; });
    if (lane == lanes_.end()) lane = lanes_.insert(lane, Lane{number, {}});
    lane->exchanges.push_back(index);
  }
}

void PostingOrder::begin_run() {
  std::fill(begun_.begin(), begun_.end(), char{0});
  std::fill(completed_.begin(), completed_.end(), char{0});
  for (Lane& lane : lanes_) lane.next = 0;
}

int PostingOrder::next(int started) {
  for (Lane& lane : lanes_) {
    if (lane.next == lane.exchanges.size()) continue;
    const int exchange = lane.exchanges[lane.next];
    if (exchange < started && may_begin(exchange)) {
      ++lane.next;
      begun_[exchange] = true;
      return exchange;
    }
  }
  return -1;
}

int PostingOrder::obstacle(int exchange) const {
  if (begun_[exchange]) return exchange;
  return static_cast<int>(std::find(completed_.begin(), completed_.end(), char{0}) - completed_.begin());
}

bool PostingOrder::may_begin(int exchange) const {
  return std::all_of(after_[exchange].begin(), after_[exchange].end(),
                     [&](int earlier) { return completed_[earlier] != 0; });
}

}  // namespace orrery
