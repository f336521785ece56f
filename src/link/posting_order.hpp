// Which exchange may begin next. Messages of a lane are matched by their order, so the exchanges of a lane begin in
// order of index, an earlier one holding back the later ones until its own `after` is complete; lanes do not hold back
// each other. Beginning does not wait for completion: a lane may have many exchanges in flight.
#pragma once

#include <vector>

#include "link/link.hpp"

namespace orrery {

class PostingOrder {
 public:
  explicit PostingOrder(const std::vector<LinkExchange>& exchanges);

  void begin_run();
  // One of the exchanges [0, started) that may begin now, which thereby has begun; -1 when there is none.
  int next(int started);
  void complete(int exchange) { completed_[exchange] = true; }

  bool begun(int exchange) const { return begun_[exchange]; }
  bool completed(int exchange) const { return completed_[exchange]; }
  // The exchange that must complete next before this one can: this one itself once it has begun, else the first that is
  // incomplete. That one has begun if all exchanges before this one were started, for nothing holds it back any more.
  int obstacle(int exchange) const;

 private:
  struct Lane {
    int number;
    std::vector<int> exchanges;
    std::size_t next = 0;
  };
  bool may_begin(int exchange) const;

  std::vector<std::vector<int>> after_;
  std::vector<Lane> lanes_;
  std::vector<char> begun_, completed_;
};

}  // namespace orrery
