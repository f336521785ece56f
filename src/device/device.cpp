// What both builds share of devices: the host's memory, and dispatch on the kind.
#include "orrery/device.hpp"

#include <cstdlib>
#include <cstring>

#include "device/cuda_runtime.hpp"
#include "orrery/error.hpp"

namespace orrery {
namespace {

constexpr std::size_t kHostAlignment = 64;  // a cache line, and the widest vector

}  // namespace

std::string_view to_string(DeviceKind kind) {
  return kind == DeviceKind::cpu ? "cpu" : "cuda";
}

DeviceMemory::DeviceMemory(Device device, std::size_t bytes, std::string_view purpose)
    : bytes_(nullptr, Free{device}), size_(bytes) {
  const std::size_t rounded = (bytes / kHostAlignment + 1) * kHostAlignment;
  auto* memory = device.kind == DeviceKind::cuda ? device::allocate(device.index, rounded)
                                                 : static_cast<std::byte*>(std::aligned_alloc(kHostAlignment, rounded));
  if (memory == nullptr) {
    fail(ErrorCode::resource, "out of memory: ", bytes, " bytes for ", purpose, " on ", to_string(device.kind));
  }
  bytes_.reset(memory);
}

void DeviceMemory::Free::operator()(std::byte* bytes) const noexcept {
  if (device.kind == DeviceKind::cuda) {
    device::release(device.index, bytes);
  } else {
    std::free(bytes);
  }
}

}  // namespace orrery
