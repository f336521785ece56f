// A rank's tensors on the host, its inputs generated and its outputs full of NaN, and aligned memory.
#pragma once

#include "world/sharded.hpp"

namespace orrery::test {

struct Tensors {
  OwnedTensor q, k, v, out, lse, grad_out, dq, dk, dv;

  Tensors(const Plan& plan, int rank, std::uint64_t seed = 3)
      : q(wide(plan, rank, plan.problem.heads)),
        k(wide(plan, rank, plan.problem.kv_heads)),
        v(wide(plan, rank, plan.problem.kv_heads)),
        out(wide(plan, rank, plan.problem.heads)),
        lse(Dtype::fp32, plan.problem.batch, plan.layout.tokens(rank), plan.problem.heads, 1, 0),
        grad_out(wide(plan, rank, plan.problem.heads)),
        dq(wide(plan, rank, plan.problem.heads)),
        dk(wide(plan, rank, plan.problem.kv_heads)),
        dv(wide(plan, rank, plan.problem.kv_heads)) {
    const auto spans = plan.layout.shard(rank);
    generate(q.view(), Generated::query, seed, spans);
    generate(k.view(), Generated::key, seed, spans);
    generate(v.view(), Generated::value, seed, spans);
    generate(grad_out.view(), Generated::grad_out, seed, spans);
  }
  static OwnedTensor wide(const Plan& plan, int rank, int heads) {
    return {plan.problem.dtype, plan.problem.batch, plan.layout.tokens(rank), heads, plan.problem.head_dim, 0};
  }
  AttentionTensors views() const {
    return {q.view(), k.view(), v.view(), out.view(), lse.view(), grad_out.view(), dq.view(), dk.view(), dv.view()};
  }
};

inline std::span<std::byte> span_of(const DeviceMemory& memory) {
  return {memory.data(), memory.size()};
}

// Memory of a CPU rank, full of NaN.
inline DeviceMemory poisoned(std::size_t bytes) {
  DeviceMemory memory({}, bytes, "a test");
  if (bytes > 0) std::memset(memory.data(), 0xff, bytes);
  return memory;
}

}  // namespace orrery::test
