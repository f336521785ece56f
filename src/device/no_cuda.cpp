// A build without CUDA: no devices, and a sentence for whoever asks for one.
#include <cstring>

#include "device/cuda_runtime.hpp"
#include "device/placement.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr const char* kSentence = "this build has no CUDA backend; configure with the preset cuda";

}  // namespace

bool has_cuda_backend() {
  return false;
}
std::vector<CudaDeviceInfo> cuda_devices() {
  return {};
}
void require(Device device) {
  if (device.kind == DeviceKind::cuda) refuse(kSentence);
}
bool joined(Device first, Device second) {
  return first == second;
}
std::string cuda_runtime_version() {
  return "none";
}
std::string cuda_driver_version() {
  return "none";
}
void copy_bytes(void* into, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(into, from, bytes);
}
void synchronize(Device) {}
std::int64_t memory_in_use(Device) {
  return 0;
}

struct DeviceStream::Impl {};
DeviceStream::DeviceStream(Device) {
  refuse(kSentence);
}
DeviceStream::~DeviceStream() = default;
DeviceStream::DeviceStream(DeviceStream&&) noexcept = default;
void* DeviceStream::handle() const {
  return nullptr;
}
void DeviceStream::record(const std::function<void()>&) {}
void DeviceStream::replay() const {}
void DeviceStream::synchronize() const {}

namespace device {

std::string misplaced(const void*, Device) {
  return "";
}

std::byte* allocate(int, std::size_t) {
  refuse(kSentence);
}
void release(int, std::byte*) noexcept {}

}  // namespace device
}  // namespace orrery
