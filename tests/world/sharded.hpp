// One sharded attention, end to end, on in-process ranks that compute on a CPU or on CUDA devices: generated inputs,
// poisoned outputs, forward and backward, full verification.
#pragma once

#include <vector>

#include "world/tensors.hpp"

namespace orrery::test {

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
    Tensors tensors(plan, world.rank(), 1, padding);
    const Device device = options.device;
    const AttentionTensors placed = tensors.on(device);
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
    tensors.fetch_results();
    const Verification v_result = verify(world, plan, tensors.views(), plan_options.backward, VerifyMode::full);
    auto& bytes = result.bytes[static_cast<std::size_t>(world.rank())];
    append_rows(tensors.out.view(), bytes);
    append_rows(tensors.lse.view(), bytes);
    if (plan_options.backward) {
      for (const OwnedTensor* t : {&tensors.dq, &tensors.dk, &tensors.dv}) append_rows(t->view(), bytes);
    }
    if (world.rank() == 0) result.verification = v_result;
  });
  return result;
}

}  // namespace orrery::test
