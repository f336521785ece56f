// Devices: where a rank's tensors lie and where it computes. Orrery's own memory on a device is only ever what a caller
// asked for here; plans take theirs from the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace orrery {

enum class DeviceKind { cpu, cuda };
std::string_view to_string(DeviceKind kind);

// "cpu", or the CUDA device of that number as this process counts them.
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

struct CudaDeviceInfo {
  std::string name;
  std::string uuid;            // its own, 16 bytes, whichever number a process gives it
  int compute_capability = 0;  // 10 * major + minor: 90 is Hopper
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t l2_bytes = 0;
};

// True when this build has the CUDA backend.
bool has_cuda_backend();
// The devices that this process may use; none in a build without CUDA, or on a machine without a driver.
std::vector<CudaDeviceInfo> cuda_devices();
// Throws ErrorCode::invalid, with the number of those there are, when this process has no such device.
void require(Device device);
// Whether two CUDA devices of this process are one, or joined by NVLink.
bool joined(Device first, Device second);
// Versions of the CUDA runtime this was built with and of the driver, "13.0" and "13.0"; "none" where there is none.
std::string cuda_runtime_version();
std::string cuda_driver_version();

// Memory of a device, aligned to 256 bytes (on a CPU to 64), not set to anything. Move-only.
// Throws ErrorCode::resource, with the size and the purpose, when there is none.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device device, std::size_t bytes, std::string_view purpose);

  std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    Device device;
    void operator()(std::byte* bytes) const noexcept;
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0;
};

// A stream of a CUDA device, for programs without the CUDA runtime at hand, and a recording of work that it repeats: a
// CUDA graph. Independent of the default stream. Move-only. Refused (ErrorCode::invalid) in a build without CUDA.
class DeviceStream {
 public:
  explicit DeviceStream(Device device);
  ~DeviceStream();
  DeviceStream(DeviceStream&&) noexcept;

  void* handle() const;  // cudaStream_t
  // Calls `put`. What it puts on the stream, from this thread, is kept instead of being done.
  void record(const std::function<void()>& put);
  // Puts what was recorded last on the stream.
  void replay() const;
  // Blocks until everything put on the stream so far is done.
  void synchronize() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Copies between any two places, host or device; returns when the bytes are there, for every stream to see. Work under
// way on streams that do not wait for the default one is not waited for.
void copy_bytes(void* into, const void* from, std::size_t bytes);
// Blocks until everything put on the device so far is done.
void synchronize(Device device);
// Bytes of the device that are in use now, by anybody; 0 for a CPU.
std::int64_t memory_in_use(Device device);

}  // namespace orrery
