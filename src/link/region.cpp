#include "link/region.hpp"

#include <algorithm>
#include <cstring>

#include "orrery/error.hpp"

namespace orrery {
namespace {

// Walks the runs of a region, and stops anywhere inside one.
class RunWalk {
 public:
  explicit RunWalk(const Region& region) : region_(region), at_(region.data), left_(region.run_bytes) {}

  std::byte* at() const { return at_; }
  std::int64_t left() const { return left_; }  // bytes to the end of the run

  void skip(std::int64_t bytes) {
    at_ += bytes;
    left_ -= bytes;
    if (left_ == 0) next_run();
  }

 private:
  void next_run() {
    for (int loop = 2; loop >= 0; --loop) {
      if (++index_[loop] < region_.counts[loop]) break;
      index_[loop] = 0;
    }
    at_ = region_.data;
    for (int loop = 0; loop < 3; ++loop) at_ += index_[loop] * region_.strides[loop];
    left_ = region_.run_bytes;
  }

  const Region& region_;
  std::array<std::int64_t, 3> index_ = {0, 0, 0};
  std::byte* at_;
  std::int64_t left_;
};

void check_message(const Message& message, int rank, int world_size) {
  const Region& region = message.region;
  ORRERY_CHECK(message.peer >= 0 && message.peer < world_size, "peer ", message.peer, " of ", world_size, " ranks");
  ORRERY_CHECK(message.peer != rank, "rank ", rank, " has a message with itself");
  ORRERY_CHECK(*std::min_element(region.counts.begin(), region.counts.end()) >= 0 && region.run_bytes >= 0,
               "a region of ", region.counts[0], " x ", region.counts[1], " x ", region.counts[2], " runs of ",
               region.run_bytes, " bytes");
  ORRERY_CHECK(region.data != nullptr || region.bytes() == 0, region.bytes(), " bytes at no address");
}

}  // namespace

void copy_region(const Region& to, const Region& from) {
  ORRERY_CHECK(to.bytes() == from.bytes(), to.bytes(), " and ", from.bytes(), " bytes");
  RunWalk write(to), read(from);
  for (std::int64_t left = from.bytes(); left > 0;) {
    const std::int64_t bytes = std::min(write.left(), read.left());
    std::memcpy(write.at(), read.at(), static_cast<std::size_t>(bytes));
    write.skip(bytes);
    read.skip(bytes);
    left -= bytes;
  }
}

void check_exchanges(const std::vector<LinkExchange>& exchanges, int rank, int world_size) {
  for (int index = 0; index < static_cast<int>(exchanges.size()); ++index) {
    const LinkExchange& exchange = exchanges[index];
    ORRERY_CHECK(exchange.lane >= 0, "exchange ", index, " on lane ", exchange.lane);
    for (int earlier : exchange.after) {
      ORRERY_CHECK(earlier >= 0 && earlier < index, "exchange ", index, " after exchange ", earlier);
    }
    for (const Message& message : exchange.sends) check_message(message, rank, world_size);
    for (const Message& message : exchange.receives) check_message(message, rank, world_size);
  }
}

}  // namespace orrery
