// The CUDA backend: steps on a device. Computation is put on one stream in program order, every exchange on its lane's,
// with an event between them wherever one depends on the other; nothing waits on the host, and nothing is created or
// allocated while a program runs. wait() is where the host learns that a run is complete, or that a peer is gone.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/memory/arena.hpp"
#include "executor/hazards.hpp"
#include "orrery/backend.hpp"
#include "orrery/device.hpp"

namespace orrery {
class StreamLink;
}

namespace orrery::cuda {

// A stream for callers that bring none; all passes of a rank share one, so that they follow each other.
struct CloseStream {
  void operator()(void* stream) const noexcept;
};
using OwnStream = std::unique_ptr<void, CloseStream>;
OwnStream open_stream(int device);

struct CudaOptions {
  int device = 0;
  void* stream = nullptr;  // cudaStream_t, on which runs are ordered
  // The stream is Orrery's own. The device's default stream, which callers without streams use, is kept in order with
  // it: a run comes after what lies there, and what is put there later comes after the run.
  bool own_stream = false;
  bool deterministic = true;
  double timeout_seconds = 300;
  int sm_margin = 0;  // multiprocessors that the attention kernels leave free
  bool portable_kernels = false;
};

// A backend whose runs complete later than end_run().
class CudaBackend : public Backend {
 public:
  // Of the next runs, for the link to compare with the peers'.
  virtual void name_run(const RunName& name) = 0;
  // Puts the tables where they belong; before the first run, and when others have written there.
  virtual void put_tables() = 0;
  // Returns when the last run is complete on the device. Throws ErrorCode::peer, naming rank, step and peer.
  virtual void wait() = 0;
  // Of the last run, which is complete: from its first to its last work on the device.
  virtual double seconds() const = 0;
};

// Why a problem cannot be computed on a CUDA device, in a sentence, or nothing.
std::string refuses(const AttentionProblem& problem);
// ... why this device cannot run the backward pass of it, though the forward.
std::string refuses_backward(const AttentionProblem& problem, bool portable_kernels, int device);
// The same of a tensor the caller gives.
std::string refuses(const TensorView& tensor);
// ... and of an SM margin on a device.
std::string refuses_margin(int sm_margin, int device);
// Which attention kernels a pass runs on a device: "fp32", "portable" or "hopper".
std::string_view kernels_of(const AttentionProblem& problem, Pass pass, bool portable_kernels, int device);

// Bytes of device memory that a program needs beside its buffers, multiples of 256.
struct ScratchBytes {
  std::size_t tables = 0;  // of masks and positions: this program's own as long as the backend lives
  std::size_t run = 0;     // key ranges, kernels' scratch and what the link stages: of whichever program runs
};
ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program, StreamLink& link);

// 256-byte aligned.
struct Scratch {
  std::span<std::byte> tables, run;
};

// `memory` holds the tensors of every buffer. It and the scratch lie on the device and outlive the backend, as do the
// other references.
std::unique_ptr<CudaBackend> make_cuda_backend(const AttentionProblem& problem, const RankProgram& program,
                                               const Dependencies& dependencies, std::vector<BufferMemory> memory,
                                               const Scratch& scratch, StreamLink& link, const CudaOptions& options);

}  // namespace orrery::cuda
