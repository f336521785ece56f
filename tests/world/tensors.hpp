// A rank's tensors, its inputs generated and its outputs full of NaN, and aligned memory.
#pragma once

#include <cstring>
#include <vector>

#include "orrery/orrery.hpp"

namespace orrery::test {

// A tensor that owns its memory, each row of it `padding` elements wider than it says, and every byte of it a NaN.
class OwnedTensor {
 public:
  OwnedTensor(Dtype dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width,
              std::int64_t padding)
      : bytes_(static_cast<std::size_t>(batch * (tokens + 1) * (heads + 1) * (width + padding)) * size_of(dtype),
               std::byte{0xff}) {
    const std::int64_t row = width + padding, line = padding > 0 ? (heads + 1) * row : heads * row;
    view_ = {bytes_.data(), dtype, batch, tokens, heads, width, (padding > 0 ? tokens + 1 : tokens) * line, line, row};
  }
  OwnedTensor(OwnedTensor&&) = default;  // the bytes stay where they are
  const TensorView& view() const { return view_; }

  // The same tensor where a rank computes: itself on a CPU, a copy with all its bytes on a device.
  TensorView on(Device device) {
    if (device.kind == DeviceKind::cpu) return view_;
    mirror_ = DeviceMemory(device, bytes_.size(), "a test");
    copy_bytes(mirror_.data(), bytes_.data(), bytes_.size());
    TensorView view = view_;
    view.data = mirror_.data();
    return view;
  }
  void fetch() { copy_bytes(bytes_.data(), mirror_.data(), mirror_.size()); }

 private:
  std::vector<std::byte> bytes_;
  DeviceMemory mirror_;
  TensorView view_;
};

// What one rank gives an attention.
struct Tensors {
  OwnedTensor q, k, v, out, lse, grad_out, dq, dk, dv;

  Tensors(const Plan& plan, int rank, std::uint64_t seed = 3, std::int64_t padding = 0, Recipe recipe = Recipe::normal)
      : q(wide(plan, rank, plan.problem.heads, padding)),
        k(wide(plan, rank, plan.problem.kv_heads, padding)),
        v(wide(plan, rank, plan.problem.kv_heads, padding)),
        out(wide(plan, rank, plan.problem.heads, padding)),
        lse(Dtype::fp32, plan.problem.batch, plan.layout.tokens(rank), plan.problem.heads, 1, padding),
        grad_out(wide(plan, rank, plan.problem.heads, padding)),
        dq(wide(plan, rank, plan.problem.heads, padding)),
        dk(wide(plan, rank, plan.problem.kv_heads, padding)),
        dv(wide(plan, rank, plan.problem.kv_heads, padding)) {
    const auto spans = plan.layout.shard(rank);
    generate(q.view(), Generated::query, seed, spans, {}, recipe);
    generate(k.view(), Generated::key, seed, spans, {}, recipe);
    generate(v.view(), Generated::value, seed, spans, {}, recipe);
    generate(grad_out.view(), Generated::grad_out, seed, spans, {}, recipe);
  }
  static OwnedTensor wide(const Plan& plan, int rank, int heads, std::int64_t padding) {
    return {plan.problem.dtype, plan.problem.batch, plan.layout.tokens(rank), heads, plan.problem.head_dim, padding};
  }
  AttentionTensors views() const {
    return {q.view(), k.view(), v.view(), out.view(), lse.view(), grad_out.view(), dq.view(), dk.view(), dv.view()};
  }
  // The same where a rank computes, and back from there.
  AttentionTensors on(Device device) {
    return {q.on(device),        k.on(device),  v.on(device),  out.on(device), lse.on(device),
            grad_out.on(device), dq.on(device), dk.on(device), dv.on(device)};
  }
  void fetch_results() {
    for (OwnedTensor* t : {&out, &lse, &dq, &dk, &dv}) t->fetch();
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
