#include "device/check.hpp"
#include "device/stream.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"

namespace orrery {

struct DeviceStream::Impl {
  struct DestroyGraph {
    void operator()(cudaGraphExec_t graph) const noexcept { cudaGraphExecDestroy(graph); }
  };

  int device;
  device::Stream stream;
  std::unique_ptr<CUgraphExec_st, DestroyGraph> recorded;
};

DeviceStream::DeviceStream(Device device) {
  if (device.kind == DeviceKind::cpu) refuse("a CPU has no streams");
  const device::DeviceGuard guard(device.index);
  impl_ = std::make_unique<Impl>(Impl{device.index, device::Stream(), nullptr});
}
DeviceStream::~DeviceStream() = default;
DeviceStream::DeviceStream(DeviceStream&&) noexcept = default;

void* DeviceStream::handle() const {
  return impl_->stream.handle();
}

void DeviceStream::record(const std::function<void()>& put) {
  const device::DeviceGuard guard(impl_->device);
  const cudaStream_t stream = impl_->stream.handle();
  cudaGraph_t graph = nullptr;
  ORRERY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    put();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();  // what was invalid with the capture
    throw;
  }
  ORRERY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t recorded = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&recorded, graph, 0);
  cudaGraphDestroy(graph);
  device::check(made, "cudaGraphInstantiate");
  impl_->recorded.reset(recorded);
}

void DeviceStream::replay() const {
  if (!impl_->recorded) refuse("nothing was recorded");
  ORRERY_CUDA_CHECK(cudaGraphLaunch(impl_->recorded.get(), impl_->stream.handle()));
}

void DeviceStream::synchronize() const {
  impl_->stream.synchronize();
}

}  // namespace orrery
