// Attention in float64, by the definition: the judge of every kernel, kept too simple to be wrong. A row's scores,
// their maximum, their exponentials, their sum; no tiles, no running state.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "orrery/tensor.hpp"

namespace orrery::kernels::reference {

// True when the query row sees the key row (row indices of the tensors given).
using Admits = std::function<bool(std::int64_t query_row, std::int64_t key_row)>;

struct Forward {
  std::vector<double> out;  // [batch, tokens, heads, head_dim]
  std::vector<double> lse;  // [batch, heads, tokens], -inf for a row with no key
};
struct Backward {
  std::vector<double> grad_query;            // [batch, query_len, heads, head_dim]
  std::vector<double> grad_key, grad_value;  // [batch, key_len, kv_heads, head_dim]
};

Forward forward(const TensorView& query, const TensorView& key, const TensorView& value, double scale,
                const Admits& admits);
Backward backward(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& grad_out,
                  const Forward& result, double scale, const Admits& admits);

}  // namespace orrery::kernels::reference
