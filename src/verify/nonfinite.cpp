#include "verify/nonfinite.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "verify/rows.hpp"

namespace orrery {

NonfiniteInputs::NonfiniteInputs(World& world, const Plan& plan, const AttentionTensors& tensors, Shares& shares,
                                 bool backward)
    : plan_(plan),
      query_(collect(world, tensors.query, shares)),
      key_value_(collect(world, tensors.key, shares)),
      grad_out_(backward ? collect(world, tensors.grad_out, shares) : Rows{}) {
  const Rows value = collect(world, tensors.value, shares);
  for (std::size_t i = 0; i < value.by_head.size(); ++i) {
    Positions both;
    std::set_union(key_value_.by_head[i].begin(), key_value_.by_head[i].end(), value.by_head[i].begin(),
                   value.by_head[i].end(), std::back_inserter(both));
    key_value_.by_head[i] = std::move(both);
  }
}

NonfiniteInputs::Rows NonfiniteInputs::collect(World& world, const TensorView& tensor, Shares& shares) {
  Positions mine;  // (batch * heads + head) * seq_len + position
  for (const std::int64_t row : shares.nonfinite(tensor)) {
    const std::int64_t position = plan_.layout.position(world.rank(), row % tensor.tokens);
    mine.push_back(row / tensor.tokens * plan_.problem.seq_len + position);
  }
  Rows rows;
  rows.by_head.resize(static_cast<std::size_t>(tensor.batch * tensor.heads));
  // Nearly always there are none, and that is cheap to learn.
  double count = static_cast<double>(mine.size());
  world.all_reduce({&count, 1}, Reduction::sum);
  if (count == 0) return rows;
  none_ = false;
  for (const std::vector<std::byte>& bytes : world.all_gather(std::as_bytes(std::span(mine)))) {
    Positions theirs(bytes.size() / sizeof(std::int64_t));
    if (!bytes.empty()) std::memcpy(theirs.data(), bytes.data(), bytes.size());
    for (const std::int64_t each : theirs) {
      rows.by_head[static_cast<std::size_t>(each / plan_.problem.seq_len)].push_back(each % plan_.problem.seq_len);
    }
  }
  for (Positions& positions : rows.by_head) std::sort(positions.begin(), positions.end());
  return rows;
}

bool NonfiniteInputs::holds(const Positions& positions, Range range) const {
  const auto first = std::lower_bound(positions.begin(), positions.end(), range.begin);
  return first != positions.end() && *first < range.end;
}

bool NonfiniteInputs::reaches_query(const Sample& query, bool backward) const {
  if (none_) return false;
  const AttentionProblem& problem = plan_.problem;
  const Range self = {query.position, query.position + 1};
  if (holds(query_.of(query.batch, query.head, problem.heads), self)) return true;
  if (backward && holds(grad_out_.of(query.batch, query.head, problem.heads), self)) return true;
  const Positions& keys = key_value_.of(query.batch, query.head / problem.group(), problem.kv_heads);
  const VisibleKeys visible = problem.mask.visible(query.position);
  return holds(keys, visible.keys) || holds(keys, visible.sinks);
}

bool NonfiniteInputs::reaches_key(const Sample& key) const {
  if (none_) return false;
  const AttentionProblem& problem = plan_.problem;
  const RowIndex whole(std::array{Span{0, problem.seq_len, 1}});
  for (const Range& range : rows_seeing(problem.mask, key.position, whole)) {
    for (std::int64_t position = range.begin; position < range.end; ++position) {
      for (int head = key.head * problem.group(); head < (key.head + 1) * problem.group(); ++head) {
        if (reaches_query({key.batch, position, head}, true)) return true;
      }
    }
  }
  return false;
}

}  // namespace orrery
