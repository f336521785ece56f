// The CUDA backend: steps on a device. Computation is put on one stream in program order, every exchange on its lane's,
// with an event between them wherever one depends on the other; nothing waits on the host, and nothing is created or
// allocated while a program runs. wait() is where the host learns that a run is complete, or that a peer is gone.
#pragma once

#include <memory>
#include <vector>

#include "backend/memory/compute_device.hpp"
#include "kernels/cuda/attend.hpp"

namespace orrery {
class StreamLink;
}

namespace orrery::cuda {

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

constexpr kernels::cuda::Kernels kernels_asked(bool portable) {
  return portable ? kernels::cuda::Kernels::portable : kernels::cuda::Kernels::best;
}

// Multiples of 256. The tables are those of masks and positions; a run uses key ranges, the kernels' scratch, and what
// the link stages.
ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program, StreamLink& link);

// `memory` holds the tensors of every buffer. It and the scratch lie on the device and outlive the backend, as do the
// other references. Runs complete later than end_run().
std::unique_ptr<MemoryBackend> make_backend(const AttentionProblem& problem, const RankProgram& program,
                                            const Dependencies& dependencies, std::vector<BufferMemory> memory,
                                            const Scratch& scratch, StreamLink& link, const CudaOptions& options);

}  // namespace orrery::cuda
