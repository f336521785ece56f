#include "device/stream.hpp"

#include "device/check.hpp"
#include "orrery/error.hpp"

namespace orrery::device {

DeviceGuard::DeviceGuard(int device) : previous_(device) {
  ORRERY_CUDA_CHECK(cudaGetDevice(&previous_));
  if (previous_ == device) return;
  const cudaError_t error = cudaSetDevice(device);
  if (error == cudaErrorInvalidDevice) {
    cudaGetLastError();
    int count = 0;
    ORRERY_CUDA_CHECK(cudaGetDeviceCount(&count));
    refuse("there is no CUDA device ", device, "; this process may use ", count, ", numbered from 0");
  }
  check(error, "cudaSetDevice");
}

DeviceGuard::~DeviceGuard() {
  cudaSetDevice(previous_);
}

Event::Event(Timing timing) {
  cudaEvent_t event = nullptr;
  ORRERY_CUDA_CHECK(cudaEventCreateWithFlags(&event, timing == Timing::on ? cudaEventDefault : cudaEventDisableTiming));
  event_.reset(event);
}

void Event::record(StreamHandle stream) const {
  ORRERY_CUDA_CHECK(cudaEventRecord(event_.get(), stream));
}

bool Event::reached() const {
  const cudaError_t state = cudaEventQuery(event_.get());
  if (state == cudaErrorNotReady) {
    cudaGetLastError();  // not an error
    return false;
  }
  ORRERY_CUDA_CHECK(state);
  return true;
}

void Event::wait_until_reached() const {
  ORRERY_CUDA_CHECK(cudaEventSynchronize(event_.get()));
}

double Event::seconds_since(EventHandle earlier) const {
  float milliseconds = 0;
  ORRERY_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier, event_.get()));
  return milliseconds * 1e-3;
}

void Event::Destroy::operator()(EventHandle event) const noexcept {
  cudaEventDestroy(event);
}

void wait(StreamHandle stream, EventHandle event) {
  ORRERY_CUDA_CHECK(cudaStreamWaitEvent(stream, event, 0));
}

Stream::Stream(Priority priority) {
  int lowest = 0, highest = 0;
  ORRERY_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t stream = nullptr;
  ORRERY_CUDA_CHECK(
      cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == Priority::high ? highest : lowest));
  stream_.reset(stream);
}

void Stream::synchronize() const {
  ORRERY_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
}

void Stream::Destroy::operator()(StreamHandle stream) const noexcept {
  cudaStreamDestroy(stream);
}

}  // namespace orrery::device
