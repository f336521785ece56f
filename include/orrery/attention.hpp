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
#include "orrery/ports.hpp"
#include "orrery/tensor.hpp"
#include "orrery/trace.hpp"
#include "orrery/world.hpp"

namespace orrery {

// What a device of this kind takes, unless somebody knows better.
Costs default_costs(DeviceKind kind);

// Collective, with the same kind of device on all ranks. The world's topology, and what the links between the ranks'
// devices carry, where that is known: on a CPU it is not, nor between nodes, nor between devices that NVLink does not
// join. Plans that are made for it choose as the program `orrery` does. Throws ErrorCode::invalid on all ranks when one
// has no such device.
Topology device_topology(World& world, Device device, const Costs& costs = Costs::cuda());

// When the ranks compare, before they exchange anything, which call they are at.
enum class Agree {
  first,   // when the attention is made, and at the first call of each pass
  always,  // at every call too: a few small records through rank 0, which a device waits for
};

struct AttentionOptions {
  int threads = 1;            // that compute, in this rank, on a CPU
  bool record_steps = false;  // keep every step's times for timeline()
  Device device = {};         // where the tensors and the workspace lie, and where this rank computes
  // Without: first, and always in debug builds. The same on all ranks. What `first` no longer compares the links do
  // where they can (docs/errors.md).
  std::optional<Agree> agree = {};
  // How many bindings stay prepared, so that binding again to the same tensors and memory costs next to nothing; the
  // one that was not bound for longest gives way. As many as calls are in flight, for callers that bind at each call.
  int bindings = 8;
  // On CUDA:
  // The cudaStream_t on which runs are ordered. Without, a stream of our own in order with the device's default stream:
  // a run comes after what the caller has put there, and what he puts there later comes after the run. That goes for
  // default streams of threads too, not for streams made with cudaStreamNonBlocking.
  std::optional<void*> stream = {};
  bool deterministic = true;  // the same bits every run; false lets grad_query's last bits depend on timing, for speed
  // Multiprocessors that the attention kernels leave free, so that a transfer begun while they run need not wait for
  // them: those of NCCL compute too. Results keep their bits. Refused when it leaves none.
  int sm_margin = 0;
  // The attention kernels that every CUDA device can run, even where those of its own architecture are faster.
  bool portable_kernels = false;
};

// The tensors of attention, for callers that need no names. This rank's rows, in the order of layout.shard(rank).
// Strides are free; the last one is 1. Inputs may share memory with each other, and with themselves (a stride of 0).
// What is written may lie between the rows of others in one allocation, but shares no byte with another tensor, with
// the workspace, or with itself: bind() refuses that.
struct AttentionTensors {
  TensorView query;       // [batch, tokens, heads, head_dim]
  TensorView key, value;  // [batch, tokens, kv_heads, head_dim]
  TensorView out;         // [batch, tokens, heads, head_dim], written
  TensorView lse;         // [batch, tokens, heads, 1] as TensorView::rows, fp32, written
  // With backward:
  TensorView grad_out;                          // [batch, tokens, heads, head_dim]
  TensorView grad_query, grad_key, grad_value;  // as query, key, value; written
  friend bool operator==(const AttentionTensors&, const AttentionTensors&) = default;
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

  // Exactly what a call needs beside the caller's tensors: kept_bytes(), and scratch. Proportional to the tokens a rank
  // owns (gather: to those it needs).
  std::size_t workspace_bytes() const;
  // What of it a forward run leaves for its backward run, beside out and lse; 0 where that is nothing. Calls that are
  // in flight at once, as micro-batches of a pipeline, have each their own, and may share the scratch.
  std::size_t kept_bytes() const;

  // The tensors that this rank binds: their names, shapes, and in which pass they are read or written.
  std::span<const Port> ports() const;

  // Local. `tensors` has one for each port, in any order; one of another name, one given twice and one that is missing
  // are refused by their names (ErrorCode::invalid). Checks every shape, stride, dtype and place, and prepares the
  // transfers. `workspace` is 64-byte aligned (256 on CUDA), of workspace_bytes(), and like the tensors stays in place
  // until the next bind or the end. After a refusal nothing is bound.
  void bind(std::span<const NamedTensor> tensors, std::span<std::byte> workspace);
  void bind(const AttentionTensors& tensors, std::span<std::byte> workspace);
  // The same with kept memory apart: `kept` of kept_bytes(), aligned alike, which the caller leaves alone from
  // forward() to backward(), and a workspace of workspace_bytes() - kept_bytes(), which any attention of this rank may
  // use in between whose runs are ordered with these.
  void bind(std::span<const NamedTensor> tensors, std::span<std::byte> workspace, std::span<std::byte> kept);
  void bind(const AttentionTensors& tensors, std::span<std::byte> workspace, std::span<std::byte> kept);

  // Collective. Before the first run of each pass, with Agree::always before every one, the ranks agree on the call,
  // which takes a few small records; the run after that allocates nothing. On CUDA these put the run on the stream and
  // return.
  // backward() is refused (ErrorCode::invalid, before anything runs) unless what is bound holds what a forward() left:
  // on these tensors, with this kept memory, and no run on this world wrote there since. Some plans use up their kept
  // memory on the way back, so that a second backward() needs another forward(). Runs that are captured count when they
  // are; the launches of a graph are the caller's to keep in order.
  void forward();
  void backward();
  // Local. The caller's word that what is bound holds what a forward() of this plan left elsewhere: it was copied here,
  // as from the memory of the host to which it had been moved.
  void assume_forward();
  // Local. Returns when all runs are complete; on a CPU they are when forward() and backward() return. Throws
  // ErrorCode::peer, naming step and peer, when an exchange is not complete within the world's timeout.
  void wait();

  // Of the last run of that pass on what is bound: its seconds, and with record_steps its steps. Waits for the run.
  Timeline timeline(Pass pass) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace orrery
