// Copies of copy_bytes(), as a stream sees them that does not wait for the default one.
#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "device/stream.hpp"
#include "gpu/kernel/device_tensor.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

// `count` bytes from a place on the device, as `stream` finds them, through page-locked memory.
class Reader {
 public:
  explicit Reader(std::size_t count) : count_(count) {
    void* memory = nullptr;
    REQUIRE(cudaMallocHost(&memory, count) == cudaSuccess);
    found_ = static_cast<std::byte*>(memory);
  }
  ~Reader() { cudaFreeHost(found_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  bool finds(std::byte expected, const std::byte* from) const {
    REQUIRE(cudaMemcpyAsync(found_, from, count_, cudaMemcpyDeviceToHost, stream_.handle()) == cudaSuccess);
    stream_.synchronize();
    for (std::size_t i = 0; i < count_; ++i) {
      if (found_[i] != expected) return false;
    }
    return true;
  }

 private:
  device::Stream stream_;
  std::size_t count_;
  std::byte* found_ = nullptr;
};

// The end of a large copy is written last.
TEST_CASE("bytes copied inside a device are there for every stream") {
  constexpr std::size_t kBytes = 1 << 30, kTail = 4096;
  const DeviceMemory from(kDevice, kBytes, "a test"), into(kDevice, kBytes, "a test");
  const Reader reader(kTail);
  for (const int value : {1, 2, 3}) {
    REQUIRE(cudaMemset(from.data(), value, kBytes) == cudaSuccess);
    synchronize(kDevice);
    copy_bytes(into.data(), from.data(), kBytes);
    CHECK(reader.finds(std::byte(value), into.data() + kBytes - kTail));
  }
}

TEST_CASE("few bytes copied to a device are there for every stream") {
  constexpr std::size_t kBytes = 64 << 10;
  const DeviceMemory into(kDevice, kBytes, "a test");
  const Reader reader(kBytes);
  std::vector<std::byte> bytes(kBytes);
  for (int value = 0; value < 200; ++value) {
    std::memset(bytes.data(), value, kBytes);
    copy_bytes(into.data(), bytes.data(), kBytes);
    CHECK(reader.finds(std::byte(value), into.data()));
  }
}

}  // namespace
}  // namespace orrery::test
