// A forward and backward run captured into a CUDA graph: its launches give the bits of a run without one.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "orrery/orrery.hpp"

namespace orrery::test {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) fail(ErrorCode::bug, cudaGetErrorString(error));
}

// A rank's tensors on the device, generated, with its outputs and workspace poisoned.
class RankTensors {
 public:
  RankTensors(const Plan& plan, int rank, Device device) : device_(device), tokens_(plan.layout.tokens(rank)) {
    const AttentionProblem& p = plan.problem;
    const auto tensor = [&](int heads) {
      return TensorView::dense(add(size_of(p.dtype) * static_cast<std::size_t>(tokens_ * heads * p.head_dim)), p.dtype,
                               1, tokens_, heads, p.head_dim);
    };
    views = {
        tensor(p.heads),
        tensor(p.kv_heads),
        tensor(p.kv_heads),
        tensor(p.heads),
        TensorView::rows(reinterpret_cast<float*>(add(sizeof(float) * static_cast<std::size_t>(tokens_ * p.heads))), 1,
                         p.heads, tokens_),
        tensor(p.heads),
        tensor(p.heads),
        tensor(p.kv_heads),
        tensor(p.kv_heads)};
    const auto spans = plan.layout.shard(rank);
    generate(views.query, Generated::query, 1, spans, device_);
    generate(views.key, Generated::key, 1, spans, device_);
    generate(views.value, Generated::value, 1, spans, device_);
    generate(views.grad_out, Generated::grad_out, 1, spans, device_);
  }

  void poison() {
    for (std::size_t i : {3, 4, 6, 7, 8}) check(cudaMemset(memory_[i].data(), 0xff, memory_[i].size()));
    check(cudaDeviceSynchronize());
  }
  std::vector<std::byte> results() const {
    std::vector<std::byte> all;
    for (std::size_t i : {3, 4, 6, 7, 8}) {
      std::vector<std::byte> bytes(memory_[i].size());
      copy_bytes(bytes.data(), memory_[i].data(), bytes.size());
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }

  AttentionTensors views;

 private:
  std::byte* add(std::size_t bytes) { return memory_.emplace_back(device_, bytes, "a test").data(); }

  Device device_;
  std::int64_t tokens_;
  std::vector<DeviceMemory> memory_;
};

class OwnedStream {
 public:
  OwnedStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~OwnedStream() { cudaStreamDestroy(stream_); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

struct Capture {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ~Capture() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
};

// Captures this rank's forward and backward, and compares what the graph's launches give with a run.
inline void graph_gives_the_bits_of_a_run(World& world, Device device, bool portable_kernels = false) {
  AttentionProblem problem;
  problem.seq_len = 1000;
  problem.heads = 4;
  problem.kv_heads = 2;
  problem.head_dim = 64;
  problem.dtype = Dtype::bf16;
  problem.mask = Mask::causal(problem.seq_len);
  const Plan plan = make_plan(problem, world.topology(), {"zigzag", "ring", true});
  const OwnedStream stream;
  RankTensors tensors(plan, world.rank(), device);
  AttentionOptions options;
  options.device = device;
  options.stream = stream.get();
  options.portable_kernels = portable_kernels;
  Attention attention(world, plan, options);
  const DeviceMemory workspace(device, attention.workspace_bytes(), "a test");
  attention.bind(tensors.views, {workspace.data(), workspace.size()});

  tensors.poison();
  attention.forward();
  attention.backward();
  attention.wait();
  const std::vector<std::byte> expected = tensors.results();

  Capture capture;
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  attention.forward();
  attention.backward();
  check(cudaStreamEndCapture(stream.get(), &capture.graph));
  check(cudaGraphInstantiate(&capture.executable, capture.graph, 0));
  for (int launch = 0; launch < 3; ++launch) {
    tensors.poison();
    world.barrier();
    check(cudaGraphLaunch(capture.executable, stream.get()));
    check(cudaStreamSynchronize(stream.get()));
    if (tensors.results() != expected) fail(ErrorCode::bug, "launch ", launch, " gave other bits");
  }
  world.barrier();
  try {
    attention.wait();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid) return;
    throw;
  }
  fail(ErrorCode::bug, "a captured run was waited for");
}

}  // namespace orrery::test
