// A caller may be drawing a CUDA graph while the link looks at streams and events of its own, which have nothing to do
// with the graph: as long as this lives, this thread's calls do not disturb it.
#pragma once

#include "device/check.hpp"

namespace orrery {

class RelaxedCapture {
 public:
  RelaxedCapture() { ORRERY_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace orrery
