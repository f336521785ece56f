// Attention over a sharded sequence: plan once, bind the tensors, run often. Every rank makes one of these with the
// same plan and calls the same functions in the same order; each call first agrees on that, so ranks that differ fail
// together and say in what.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "orrery/plan.hpp"
#include "orrery/tensor.hpp"
#include "orrery/trace.hpp"
#include "orrery/world.hpp"

namespace orrery {

struct AttentionOptions {
  int threads = 1;            // that compute, in this rank
  bool record_steps = false;  // keep every step's times for timeline()
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

  // Exactly what a run needs beside the caller's tensors. Proportional to the tokens a rank owns (gather: to those it
  // needs).
  std::size_t workspace_bytes() const;

  // Local. Checks every shape, stride and dtype (ErrorCode::invalid), and prepares the transfers. `workspace` is
  // 64-byte aligned, of workspace_bytes(), and like the tensors stays in place until the next bind or the end.
  void bind(const AttentionTensors& tensors, std::span<std::byte> workspace);

  // Collective. First the ranks agree on the call, which takes a few small records; the run after that allocates
  // nothing. backward() follows a forward() on the same tensors.
  void forward();
  void backward();

  // Of the last run of that pass: its seconds, and with record_steps its steps.
  Timeline timeline(Pass pass) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery
