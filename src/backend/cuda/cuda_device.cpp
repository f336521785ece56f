#include "backend/cuda/cuda_device.hpp"

#include <cuda_runtime_api.h>

#include <utility>

#include "backend/cuda/cuda_backend.hpp"
#include "device/check.hpp"
#include "device/stream.hpp"
#include "kernels/cuda/attend.hpp"
#include "link/stream_link.hpp"
#include "orrery/error.hpp"

namespace orrery::cuda {
namespace {

using device::DeviceGuard;
using device::StreamHandle;

// For callers that bring none; all passes of a rank share one, so that they follow each other.
struct CloseStream {
  void operator()(StreamHandle stream) const noexcept { cudaStreamDestroy(stream); }
};
using OwnStream = std::unique_ptr<std::remove_pointer_t<StreamHandle>, CloseStream>;

OwnStream open_stream(int device) {
  const DeviceGuard guard(device);
  StreamHandle stream = nullptr;
  ORRERY_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return OwnStream(stream);
}

class CudaDevice final : public ComputeDevice {
 public:
  CudaDevice(int device, const ComputeOptions& options) : device_(device), options_(options) {
    require({DeviceKind::cuda, device});
    check_margin();
    if (!options.stream) own_stream_ = open_stream(device);
  }

  void check(const AttentionProblem& problem, bool backward) const override {
    const DeviceGuard guard(device_);
    const char* reason = kernels::cuda::attend_refuses(problem.dtype, problem.head_dim);
    if (reason != nullptr) refuse(reason);
    if (!backward) return;
    const std::string of_backward = kernels::cuda::attend_backward_refuses(kernels_asked(options_.portable_kernels),
                                                                           problem.dtype, problem.head_dim);
    if (!of_backward.empty()) refuse(of_backward);
  }

  std::string refuses(const TensorView& tensor) const override {
    return kernels::cuda::attend_takes(tensor)
               ? ""
               : "16-bit tensors must begin, and have strides, at multiples of 16 bytes";
  }

  void connect(World& world, int lanes) override {
    link_ = &world.stream_link({DeviceKind::cuda, device_}, lanes);
    timeout_seconds_ = world.timeout_seconds();
  }
  std::string_view link_name() const override { return link_->name(); }

  bool runs_fused() const override { return true; }
  std::size_t alignment() const override { return kDeviceAlignment; }

  std::string_view kernels(const AttentionProblem& problem, Pass pass) const override {
    const DeviceGuard guard(device_);
    const auto of = pass == Pass::forward ? kernels::cuda::forward_kernel : kernels::cuda::backward_kernel;
    return to_string(of(kernels_asked(options_.portable_kernels), problem.dtype, problem.head_dim,
                        static_cast<float>(problem.effective_scale())));
  }

  ScratchBytes scratch_bytes(const AttentionProblem& problem, const RankProgram& program) const override {
    return cuda::scratch_bytes(problem, program, *link_);
  }
  std::unique_ptr<MemoryBackend> make_backend(const AttentionProblem& problem, const RankProgram& program,
                                              const Dependencies& dependencies, std::vector<BufferMemory> memory,
                                              const Scratch& scratch) override {
    const bool own = !options_.stream;
    return cuda::make_backend(problem, program, dependencies, std::move(memory), scratch, *link_,
                              {device_, own ? own_stream_.get() : *options_.stream, own, options_.deterministic,
                               timeout_seconds_, options_.sm_margin, options_.portable_kernels});
  }

 private:
  void check_margin() const {
    const int margin = options_.sm_margin;
    if (margin < 0) refuse("an SM margin of ", margin);
    int count = 0;
    ORRERY_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device_));
    if (margin < count) return;
    refuse("an SM margin of ", margin, " leaves none of the ", count, " multiprocessors of CUDA device ", device_,
           " to compute on");
  }

  const int device_;
  const ComputeOptions options_;
  OwnStream own_stream_;
  StreamLink* link_ = nullptr;
  double timeout_seconds_ = 0;
};

}  // namespace

std::unique_ptr<ComputeDevice> open_device(int device, const ComputeOptions& options) {
  return std::make_unique<CudaDevice>(device, options);
}

}  // namespace orrery::cuda
