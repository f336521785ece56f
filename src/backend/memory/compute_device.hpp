// Where a rank computes, as the front door sees it: what a device refuses, what memory a program needs beside its
// buffers, and the backend that runs it. There is one implementation for each kind of device, and nothing above them
// knows which one it has.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/memory/arena.hpp"
#include "executor/hazards.hpp"
#include "orrery/backend.hpp"
#include "orrery/tensor.hpp"
#include "orrery/world.hpp"

namespace orrery {

// Beside the buffers of a program: bytes, and where they lie.
struct ScratchBytes {
  std::size_t tables = 0;  // this program's own as long as its backend lives
  std::size_t run = 0;     // used by whichever program runs
};
struct Scratch {
  std::span<std::byte> tables, run;  // aligned as the device says
};

// A backend on memory of the caller's, in which numbers lie.
class MemoryBackend : public Backend {
 public:
  // Of the next runs, for the link to compare with the peers'.
  virtual void name_run(const RunName& name) = 0;
  // Writes the tables into the scratch: before the first run, and when others have written there.
  virtual void put_tables() {}
  // Returns when the last run is complete. Throws ErrorCode::peer, naming rank, step and peer.
  virtual void wait() {}
  // Of the last run, which is complete, by the device's own clock where it has one.
  virtual std::optional<double> seconds() const { return std::nullopt; }
};

struct ComputeOptions {
  int threads = 1;  // on a CPU
  // On CUDA; as in AttentionOptions.
  std::optional<void*> stream = {};
  bool deterministic = true;
  int sm_margin = 0;
  bool portable_kernels = false;
};

class ComputeDevice {
 public:
  virtual ~ComputeDevice() = default;

  // Throws ErrorCode::invalid with the reason, in a sentence, when the device cannot compute the problem.
  virtual void check(const AttentionProblem& problem, bool backward) const = 0;
  // Why it cannot take a tensor of the caller's, in a sentence, or nothing.
  virtual std::string refuses(const TensorView& tensor) const = 0;

  // Collective, with the same number of lanes on all ranks. Opens what carries slices on so many lanes between this
  // rank's memory and that of others. The world outlives this.
  virtual void connect(World& world, int lanes) = 0;
  virtual std::string_view link_name() const = 0;  // once connected

  // Whether it runs programs fused, or as they are planned.
  virtual bool runs_fused() const = 0;
  // Of the scratch and of the plan's buffers, in bytes.
  virtual std::size_t alignment() const = 0;
  // Which attention kernels a pass runs; empty where there is no choice.
  virtual std::string_view kernels(const AttentionProblem& problem, Pass pass) const = 0;

  // Once connected. The references outlive the backend, and `memory` holds the tensors of every buffer.
  virtual ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program) const = 0;
  virtual std::unique_ptr<MemoryBackend> make_backend(const AttentionProblem& problem, const RankProgram& program,
                                                      const Dependencies& dependencies,
                                                      std::vector<BufferMemory> memory, const Scratch& scratch) = 0;
};

}  // namespace orrery
