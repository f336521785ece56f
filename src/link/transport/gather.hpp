// all_gather and all_reduce over a transport, with a deadline. A collective cannot say who did not come; here all
// records pass through rank 0, which waits for each rank by name. The other ranks wait a little longer than rank 0, so
// that the one that can name the culprit speaks first.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "link/deadline.hpp"
#include "orrery/transport.hpp"
#include "orrery/world.hpp"

namespace orrery {

class Gather {
 public:
  Gather(Transport& transport, const Interrupted* interrupted);
  ~Gather();
  std::vector<std::vector<std::byte>> operator()(std::span<const std::byte> mine, double timeout_seconds);
  void all_reduce(std::span<double> values, Reduction reduction, double timeout_seconds);
  bool broken() const { return !abandoned_.empty(); }

 private:
  struct Round;
  // Runs a round, of which `body` is this rank's part.
  template <typename Body>
  std::unique_ptr<Round> run(std::size_t bytes, double timeout_seconds, const Body& body);
  Transport& transport_;
  int rank_, world_size_;
  const Interrupted* interrupted_;
  // Rounds that were not finished: the transport may still write to their memory.
  std::vector<std::unique_ptr<Round>> abandoned_;
};

}  // namespace orrery
