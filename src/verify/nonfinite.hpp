// Which rows a NaN or an infinity of the inputs reaches. The mask decides, and not the numbers: a query is reached by
// its own row and by every key and value that it sees, whatever their scores, so that keys whose scores are -inf or
// +inf need no rule of their own; a key is reached by every query that sees it and is reached itself, or whose grad_out
// is not finite. What is reached has no right answer that is worth a name, and what is not must come out as if the
// value were not there.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "orrery/world.hpp"
#include "verify/shares.hpp"

namespace orrery {

class NonfiniteInputs {
 public:
  // Collective: the inputs of all ranks. Plan must outlive it.
  NonfiniteInputs(World& world, const Plan& plan, const AttentionTensors& tensors, Shares& shares, bool backward);

  bool reaches_query(const Sample& query, bool backward) const;
  bool reaches_key(const Sample& key) const;  // of a KV head

 private:
  using Positions = std::vector<std::int64_t>;  // sorted
  struct Rows {
    std::vector<Positions> by_head;  // [batch * heads]
    const Positions& of(std::int64_t batch, int head, int heads) const {
      return by_head[static_cast<std::size_t>(batch * heads + head)];
    }
  };
  Rows collect(World& world, const TensorView& tensor, Shares& shares);
  bool holds(const Positions& positions, Range range) const;

  const Plan& plan_;
  bool none_ = true;
  Rows query_, key_value_, grad_out_;
};

}  // namespace orrery
