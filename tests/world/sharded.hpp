// One sharded attention, end to end, on in-process ranks that compute on a CPU or on CUDA devices: generated inputs,
// poisoned outputs, forward and backward, full verification.
#pragma once

#include <cstring>
#include <mutex>
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

inline void append_rows(const TensorView& t, std::vector<std::byte>& into) {
  for (std::int64_t b = 0; b < t.batch; ++b) {
    for (std::int64_t n = 0; n < t.tokens; ++n) {
      for (std::int64_t h = 0; h < t.heads; ++h) {
        const std::byte* row = t.at(b, n, h);
        into.insert(into.end(), row, row + t.width * static_cast<std::int64_t>(size_of(t.dtype)));
      }
    }
  }
}

struct Sharded {
  Verification verification;
  std::vector<std::vector<std::byte>> bytes;  // by rank: out, lse and gradients
};

inline Sharded run_sharded(const AttentionProblem& problem, const PlanOptions& plan_options, int world_size,
                           const AttentionOptions& options = {}, std::int64_t padding = 0, int runs = 1) {
  Sharded result;
  result.bytes.resize(static_cast<std::size_t>(world_size));
  const Plan plan = make_plan(problem, Topology::single_node(world_size), plan_options);
  run_in_process(world_size, {.timeout_seconds = 60}, [&](World& world) {
    const auto spans = plan.layout.shard(world.rank());
    const std::int64_t tokens = plan.layout.tokens(world.rank());
    const auto tensor = [&](int heads, std::int64_t width, Dtype dtype) {
      return OwnedTensor(dtype, problem.batch, tokens, heads, width, padding);
    };
    const auto wide = [&](int heads) { return tensor(heads, problem.head_dim, problem.dtype); };
    OwnedTensor q = wide(problem.heads), k = wide(problem.kv_heads), v = wide(problem.kv_heads),
                grad_out = wide(problem.heads), out = wide(problem.heads), dq = wide(problem.heads),
                dk = wide(problem.kv_heads), dv = wide(problem.kv_heads), lse = tensor(problem.heads, 1, Dtype::fp32);
    generate(q.view(), Generated::query, 1, spans);
    generate(k.view(), Generated::key, 1, spans);
    generate(v.view(), Generated::value, 1, spans);
    generate(grad_out.view(), Generated::grad_out, 1, spans);
    const AttentionTensors tensors{q.view(),        k.view(),  v.view(),  out.view(), lse.view(),
                                   grad_out.view(), dq.view(), dk.view(), dv.view()};
    const Device device = options.device;
    const AttentionTensors placed{q.on(device),        k.on(device),  v.on(device),  out.on(device), lse.on(device),
                                  grad_out.on(device), dq.on(device), dk.on(device), dv.on(device)};
    Attention attention(world, plan, options);
    const std::vector<std::byte> poison(attention.workspace_bytes(), std::byte{0xff});
    const DeviceMemory workspace(device, poison.size(), "a test");
    copy_bytes(workspace.data(), poison.data(), poison.size());
    attention.bind(placed, {workspace.data(), workspace.size()});
    for (int i = 0; i < runs; ++i) {
      attention.forward();
      if (plan_options.backward) attention.backward();
    }
    attention.wait();
    for (OwnedTensor* t : {&out, &lse, &dq, &dk, &dv}) t->fetch();
    const Verification v_result = verify(world, plan, tensors, plan_options.backward, VerifyMode::full);
    auto& bytes = result.bytes[static_cast<std::size_t>(world.rank())];
    append_rows(out.view(), bytes);
    append_rows(lse.view(), bytes);
    if (plan_options.backward) {
      for (const OwnedTensor* t : {&dq, &dk, &dv}) append_rows(t->view(), bytes);
    }
    if (world.rank() == 0) result.verification = v_result;
  });
  return result;
}

}  // namespace orrery::test
