// Attention over a sharded sequence: plan once, bind the tensors, run often. Every rank makes one of these with the
// same plan and calls the same functions in the same order; each call first agrees on that, so ranks that differ fail
// together and say in what.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "orrery/device.hpp"
#include "orrery/plan.hpp"
#include "orrery/tensor.hpp"
#include "orrery/trace.hpp"
#include "orrery/world.hpp"

namespace orrery {

struct AttentionOptions {
  int threads = 1;            // that compute, in this rank, on a CPU
  bool record_steps = false;  // keep every step's times for timeline()
  Device device = {};         // where the tensors and the workspace lie, and where this rank computes
  // On CUDA:
  std::optional<void*> stream = {};  // the cudaStream_t on which runs are ordered; without, a stream of our own
  bool deterministic = true;  // the same bits every run; false lets grad_query's last bits depend on timing, for speed
  // Multiprocessors that the attention kernels leave free, so that a transfer begun while they run need not wait for
  // them: those of NCCL compute too. Results keep their bits. Refused when it leaves none.
  int sm_margin = 0;
  // The attention kernels that every CUDA device can run, even where those of its own architecture are faster.
  bool portable_kernels = false;
};

// This rank's rows, in the order of layout.shard(rank). Strides are free; the last one is 1.
struct AttentionTensors {
  TensorView query;       // [batch, tokens, heads, head_dim]
  TensorView key, value;  // [batch, tokens, kv_heads, head_dim]
  TensorView out;         // [batch, tokens, heads, head_dim], written
  TensorView lse;         // [batch, tokens, heads, 1] as TensorView::rows, fp32, written
  // With backward:
  TensorView grad_out;                          // [batch, tokens, heads, head_dim]
  TensorView grad_query, grad_key, grad_value;  // as query, key, value; written
};

class Attention {
 public:
  // Collective. Builds this rank's programs and agrees with all ranks that they belong together. In debug builds the
  // plan is proved first. `world` must outlive this.
  Attention(World& world, Plan plan, const AttentionOptions& options = {});
  ~Attention();
  Attention(Attention&&) noexcept;

  const Plan& plan() const;
  const RankProgram& program(Pass pass) const;

  // What carries slices between this rank's memory and that of others: "inprocess", "mpi" or "nccl".
  std::string_view link_name() const;

  // Which attention kernels this rank's CUDA device runs in a pass: "hopper", "portable" or, for that dtype, "fp32".
  // Empty on a CPU, and for a pass that is not planned.
  std::string_view kernels(Pass pass) const;

  // Exactly what a run needs beside the caller's tensors. Proportional to the tokens a rank owns (gather: to those it
  // needs).
  std::size_t workspace_bytes() const;

  // Local. Checks every shape, stride and dtype (ErrorCode::invalid), and prepares the transfers. `workspace` is
  // 64-byte aligned (256 on CUDA), of workspace_bytes(), and like the tensors stays in place until the next bind or the
  // end.
  void bind(const AttentionTensors& tensors, std::span<std::byte> workspace);

  // Collective. First the ranks agree on the call, which takes a few small records; the run after that allocates
  // nothing. backward() follows a forward() on the same tensors. On CUDA these put the run on the stream and return.
  void forward();
  void backward();
  // Local. Returns when all runs are complete; on a CPU they are when forward() and backward() return. Throws
  // ErrorCode::peer, naming step and peer, when an exchange is not complete within the world's timeout.
  void wait();

  // Of the last run of that pass: its seconds, and with record_steps its steps. Waits for the run.
  Timeline timeline(Pass pass) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery
