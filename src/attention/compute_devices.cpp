#include "attention/compute_devices.hpp"

#include "backend/cuda/cuda_device.hpp"
#include "backend/host/host_device.hpp"
#include "core/thread_pool.hpp"
#include "orrery/error.hpp"

namespace orrery {

std::unique_ptr<ComputeDevice> open_compute_device(const AttentionOptions& options) {
  const ComputeOptions compute{options.threads, options.stream, options.deterministic, options.sm_margin,
                               options.portable_kernels};
  ThreadPool::check(options.threads);  // refused on every device, also where none are needed
  switch (options.device.kind) {
    case DeviceKind::cpu:
      return host::open_device(compute);
    case DeviceKind::cuda:
      return cuda::open_device(options.device.index, compute);
  }
  refuse("no device is of kind ", static_cast<int>(options.device.kind));
}

}  // namespace orrery
